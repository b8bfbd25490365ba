"""Finding ComfyUI: which folders and Pythons are tried, and what is said if none will do."""

import os
import sys
from pathlib import Path

import pytest

from image_to_prompt.workflows import run
from image_to_prompt.workflows.comfyui import hosts
from image_to_prompt.workflows.comfyui.needs import needs_of


def checkout(folder: Path, version: str = "1.2.3", main: str = "") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text(main)
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


def fake_python(place: Path, fails_with: str = "") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    code = f"echo {fails_with} >&2; exit 1" if fails_with else "exit 0"
    place.write_text(f"#!/bin/sh\n{code}\n")
    place.chmod(0o755)
    return place


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No settings, an empty home, and nothing on PATH."""
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(hosts.shutil, "which", lambda name: None)
    hosts._why_not.cache_clear()


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in Pythons are shell scripts")


def test_a_stated_path_is_used_alone_and_may_be_several(monkeypatch, tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    checkout(tmp_path / "home" / "comfy" / "ComfyUI")
    for folder in (first, second):
        fake_python(folder / ".venv" / "bin" / "python")
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join([str(first), str(second)]))
    found = hosts.search()
    assert [host.folder for host in found.hosts] == [first, second]
    assert not found.problems
    assert hosts.first().version == "1.2.3"


def test_the_first_is_found_without_trying_those_behind_it(monkeypatch, tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    fake_python(first / ".venv" / "bin" / "python")
    mark = tmp_path / "tried"
    fake_python(second / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\ntouch {mark}\n")
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join([str(first), str(second)]))
    assert hosts.first().folder == first
    assert not mark.exists()
    assert len(hosts.search().hosts) == 2 and mark.exists()


def test_the_host_that_this_pack_is_installed_in_is_found(monkeypatch, tmp_path):
    host = checkout(tmp_path / "host")
    python = fake_python(host / "venv" / "bin" / "python")
    monkeypatch.setattr(hosts, "PACK", host / "custom_nodes" / "image-to-prompt")
    assert hosts.search().hosts == [hosts.Host(host, python)]


def test_the_usual_place_is_found(tmp_path):
    host = checkout(tmp_path / "home" / "comfy" / "ComfyUI")
    fake_python(host / ".venv" / "bin" / "python")
    assert [found.folder for found in hosts.search().hosts] == [host]


@pytest.mark.parametrize(
    "place",
    [".venv/bin/python", "venv/bin/python", "../python_embeded/python.exe", "../.venv/bin/python"],
)
def test_each_place_for_a_python_is_tried(tmp_path, place):
    host = checkout(tmp_path / "host")
    python = fake_python(host / place)
    assert hosts.host_in(host).python.resolve() == python.resolve()


def test_a_stated_python_comes_first(monkeypatch, tmp_path):
    host = checkout(tmp_path / "host")
    fake_python(host / ".venv" / "bin" / "python")
    stated = fake_python(tmp_path / "stated")
    monkeypatch.setenv("COMFYUI_PYTHON", str(stated))
    assert hosts.host_in(host).python == stated


def test_a_python_that_lacks_something_is_passed_over(tmp_path):
    host = checkout(tmp_path / "host")
    fake_python(host / ".venv" / "bin" / "python", "no av")
    good = fake_python(host / "venv" / "bin" / "python")
    assert hosts.host_in(host).python == good


def test_if_no_python_will_do_every_try_is_named_with_its_reason(monkeypatch, tmp_path):
    host = checkout(tmp_path / "host", main="import no_module_of_this_name\n")
    broken = fake_python(host / ".venv" / "bin" / "python", "no-av")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(hosts.HostError) as error:
        hosts.first()
    text = str(error.value)
    assert f"{broken}: no-av" in text
    assert str(tmp_path / "nowhere") in text
    assert f"{sys.executable}: ModuleNotFoundError" in text
    assert "requirements.txt" in text and "COMFYUI_PYTHON" in text


def test_a_stated_folder_that_is_no_host_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert "must hold main.py and comfy/" in hosts.search().problems[0]


def test_without_any_host_the_places_are_named(tmp_path):
    found = hosts.search()
    assert not found.hosts
    assert str(tmp_path / "home" / "comfy" / "ComfyUI") in found.problems[0]
    assert "COMFYUI_PATH" in found.problems[0]
    assert run.main(["--hosts"]) == 1


def test_found_hosts_are_listed_with_what_runs_them(tmp_path, capsys):
    host = checkout(tmp_path / "home" / "comfy" / "ComfyUI")
    python = fake_python(host / ".venv" / "bin" / "python")
    assert run.main(["--hosts"]) == 0
    assert capsys.readouterr().out == f"ComfyUI 1.2.3 in {host}, run by {python}\n"


# --- what a host needs --------------------------------------------------------------------------


def sources(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_needs_are_read_through_the_hosts_own_modules(tmp_path):
    folder = sources(
        tmp_path,
        main="import os, app.first\nfrom comfy import model\nimport server as s\n",
        app__first="from .second import x\nfrom . import third\n",
        app__second="import requests.adapters\nimport app.first\n",
        app__third="from einops import rearrange\n",
        comfy__model="import torch.nn as nn\nfrom . import absent\n",
        server="from aiohttp import web\n",
        unused="import nothing_of_this_name\n",
    )
    assert needs_of(folder) == ("aiohttp", "einops", "requests", "torch")


def test_what_may_be_missing_is_not_needed(tmp_path):
    folder = sources(
        tmp_path,
        main="try:\n    import a\nexcept ImportError:\n    pass\nimport b\n"
        "if False:\n    import c\ndef f():\n    import d\n",
        newer="import e\n",
    )
    (folder / "main.py").write_text((folder / "main.py").read_text() + "import newer\n")
    (folder / "newer.py").write_text("import e\nthis is no Python of ours\n")
    assert needs_of(folder) == ("b",)


def test_the_page_is_needed_where_the_host_lists_it(tmp_path):
    sources(tmp_path, main="import b\n")
    (tmp_path / "requirements.txt").write_text("comfyui-frontend-package==1.2.3\n")
    assert needs_of(tmp_path) == ("b", "comfyui_frontend_package")


def test_a_python_without_one_of_the_hosts_needs_is_passed_over(monkeypatch, tmp_path):
    host = checkout(tmp_path / "host", main="import app.pages\n")
    sources(host, app__pages="import requests_of_no_machine\n")
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    with pytest.raises(hosts.HostError, match="No module named 'requests_of_no_machine'"):
        hosts.host_in(host)
