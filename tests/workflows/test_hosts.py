"""Finding ComfyUI: which folders and Pythons are tried, and what is said if none will do."""

import os
import sys
from pathlib import Path

import pytest

from image_to_prompt.workflows.comfyui import hosts


def checkout(folder: Path, version: str = "1.2.3") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
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
    host = checkout(tmp_path / "host")
    broken = fake_python(host / ".venv" / "bin" / "python", "no-av")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "nowhere"))
    monkeypatch.setattr(hosts, "NEEDS", ("no_module_of_this_name",))
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
    assert hosts.main() == 1
