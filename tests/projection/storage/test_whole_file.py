"""Files written whole, replaced or created: never half, never over another's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from image_to_prompt.projection.storage import whole_file
from image_to_prompt.projection.storage.whole_file import create_file, replace_file
from image_to_prompt.tests.fixtures import builders

posix = pytest.mark.skipif(os.name != "posix", reason="locks and kills are POSIX")
LEFT = f"image-to-prompt.{'0' * 32}.part"


def names() -> list[str]:
    return [f"p_{number:05}_" for number in range(1, 500)]


def _create_many(folder: str, start: object, mark: int) -> None:
    start.wait()
    for number in range(15):
        create_file(folder, names(), [f"{mark} {number}".encode()])


def test_many_processes_that_create_files_in_one_folder_keep_every_one(tmp_path):
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    start = context.Event()
    workers = [
        context.Process(target=_create_many, args=(str(tmp_path), start, mark)) for mark in range(8)
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    found = {path.read_text() for path in tmp_path.iterdir()}
    assert found == {f"{mark} {number}" for mark in range(8) for number in range(15)}


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_is_left_and_the_next_is_used(tmp_path, monkeypatch, links):
    def refused(source, target):
        raise PermissionError(1, "no hard links here")

    if not links:
        monkeypatch.setattr(whole_file.os, "link", refused)
    (tmp_path / "p_00001_").write_bytes(b"another's")
    (tmp_path / "p_00002_").symlink_to(tmp_path / "nowhere")
    assert create_file(tmp_path, names(), [b"mine, ", b"whole"]) == tmp_path / "p_00003_"
    assert (tmp_path / "p_00001_").read_bytes() == b"another's"
    assert (tmp_path / "p_00002_").is_symlink()
    assert (tmp_path / "p_00003_").read_bytes() == b"mine, whole"
    assert len(list(tmp_path.iterdir())) == 3


def test_where_every_name_is_taken_nothing_is_written(tmp_path):
    (tmp_path / "a").write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        create_file(tmp_path, ["a"], [b"mine"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"another's"


KILLED = """
import os, runpy, signal, sys
runpy.run_path(sys.argv[1])
from image_to_prompt.projection.storage.whole_file import replace_file
def chunks():
    yield b"half"
    sys.stdout.write("writing\\n"); sys.stdout.flush()
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
replace_file(sys.argv[2], chunks())
"""


@pytest.mark.slow
@posix
def test_what_a_kill_leaves_is_removed_at_the_next_write_and_not_before(tmp_path):
    target = tmp_path / "p.safetensors"
    command = [sys.executable, "-c", KILLED, builders.ROOT / "workflows" / "checkout.py", target]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"writing\n"
    replace_file(tmp_path / "other", [b"x"])
    assert len(list(tmp_path.glob("*.part"))) == 1, "a file that is being written was removed"
    writer.communicate(b"\n")
    assert writer.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.part"))) == 1
    replace_file(tmp_path / "other", [b"y"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@posix
@pytest.mark.parametrize("name", [LEFT, f"mine_00001_.safetensors.{'a' * 32}.part"])
def test_a_temporary_file_of_this_or_an_earlier_version_is_removed(tmp_path, name):
    (tmp_path / name).write_bytes(b"half")
    replace_file(tmp_path / "p", [b"x"])
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    "name", ["film.part", f"film.{'a' * 32}.part", "p.safetensors.part", f"{LEFT}.bak"]
)
def test_temporary_files_of_other_programs_stay(tmp_path, name):
    (tmp_path / name).write_bytes(b"half")
    replace_file(tmp_path / "p", [b"x"])
    assert (tmp_path / name).exists()


def test_what_was_written_is_flushed_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            whole_file.os, name, lambda *args, n=name, f=real: (order.append(n), f(*args))
        )
    replace_file(tmp_path / "p", [b"x"])
    assert order[:2] == ["fsync", "replace"]
