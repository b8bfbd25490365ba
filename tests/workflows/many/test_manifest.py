"""The manifest at every byte where a kill can cut it, and results that are saved exclusively."""

from __future__ import annotations

import subprocess
import sys

import pytest

from image_to_prompt.workflows.many import missing
from image_to_prompt.workflows.many.results.folder import OWN, Folder
from image_to_prompt.workflows.many.results.manifest import File, LocalJournal, Manifest
from image_to_prompt.workflows.many.results.remote import Remote


def record(job: str, path: str, key: str = "k") -> dict:
    files = [{"path": path, "bytes": 3, "sha256": "00"}]
    return {"job": job, "key": key, "state": "done", "files": files}


def test_records_come_back_and_the_last_one_of_a_job_counts(tmp_path):
    manifest = Manifest(LocalJournal(tmp_path))
    manifest.add(record("ä\udc80", "a.png"))
    manifest.add({"job": "b", "state": "failed"})
    manifest.add(record("b", "b.png", "new"))
    again = Manifest(LocalJournal(tmp_path))
    assert again.files_of("ä\udc80", "k") == [File("a.png", 3, "00")]
    assert again.files_of("b", "k") is None and again.files_of("b", "new")
    assert again.names("a.png") and not again.names("c.png")


def test_a_manifest_cut_at_any_byte_keeps_its_whole_lines_and_takes_new_ones(tmp_path):
    manifest = Manifest(LocalJournal(tmp_path))
    for name in ("a", "b"):
        manifest.add(record(name, f"{name}.png"))
    file = tmp_path / "manifest.jsonl"
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        cut = Manifest(LocalJournal(tmp_path))
        assert cut.unreadable == 0
        assert [bool(cut.files_of(name, "k")) for name in ("a", "b")] == [lines > 0, lines > 1]
        cut.add(record("c", "c.png"))
        again = Manifest(LocalJournal(tmp_path))
        assert again.unreadable == 0 and again.files_of("c", "k")


@pytest.mark.parametrize("line", ["null", "[1]", "{", '{"job": 3}', '{"job": "a", "files": [1]}'])
def test_a_line_that_is_no_record_costs_nothing_but_its_job(line, tmp_path):
    good = Manifest(LocalJournal(tmp_path))
    good.add(record("b", "b.png"))
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write(line + "\n")
    assert Manifest(LocalJournal(tmp_path)).files_of("b", "k")


@pytest.fixture(params=["folder", "url"])
def to(request, tmp_path):
    if request.param == "folder":
        made = Folder(tmp_path / "out")
    else:
        pytest.importorskip("fsspec", reason="fsspec is not installed")
        made = Remote(f"file://{tmp_path}/out")
    with made.held() as held:
        yield held


def put(to, content: bytes, taken=lambda _: False) -> File:
    source = to.scratch / "source.png"
    source.write_bytes(content)
    return to.save(source, "sub/cat", ".png", taken)


def test_files_are_saved_beside_others_and_equal_ones_taken_over(to, tmp_path):
    first = put(to, b"one")
    assert (first.path, first.size) == ("sub/cat.png", 3) and to.has(first)
    assert put(to, b"one") == first, "left by a run that was killed"
    second = put(to, b"two")
    assert second.path == "sub/cat-2.png"
    assert put(to, b"one", taken=lambda path: path == first.path).path == "sub/cat-3.png"
    assert (tmp_path / "out/sub/cat.png").read_bytes() == b"one"
    assert not (to.scratch / "source.png").exists()
    (tmp_path / "out/sub/cat-2.png").write_bytes(b"four")
    assert not to.has(second)


def test_the_manifest_of_a_url_is_there_at_the_end(tmp_path):
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    with Remote(f"file://{tmp_path}/out").held() as to:
        Manifest(to.journal).add(record("a", "a.png"))
    with Remote(f"file://{tmp_path}/out").held() as to:
        assert Manifest(to.journal).files_of("a", "k")


def test_what_a_killed_run_left_under_way_is_removed(tmp_path):
    left = tmp_path / OWN / "running" / "worker-1"
    left.mkdir(parents=True)
    with Folder(tmp_path).held():
        assert not left.exists()


def test_a_package_that_is_missing_is_told_in_one_line():
    with pytest.raises(missing.MissingError) as error:
        missing.require("no_such_package.part", "a Ray cluster")
    told = str(error.value)
    assert told.startswith("a Ray cluster needs no_such_package") and "\n" not in told
    assert 'pip install "ray[data]' in told


def test_without_the_extra_nothing_of_it_is_imported():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); from image_to_prompt.workflows import "
        "run_many; print(sorted({'ray', 'pyarrow', 'fsspec', 'pandas'} & sys.modules.keys()))"
    )
    from image_to_prompt.workflows.checkout import ROOT

    line = [sys.executable, "-c", code, str(ROOT / "workflows" / "checkout.py")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
