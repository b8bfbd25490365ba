"""What the server starter puts into a base folder: it replaces what it made, and nothing else."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_to_prompt.tests.workflows.trees import snapshot, untouched
from image_to_prompt.workflows.comfyui import hosts, placed, server
from image_to_prompt.workflows.comfyui.hosts import PACK, HostError

CLIP = Path("models", "clip_vision", "clip.safetensors")
NODES = Path("custom_nodes", "image-to-prompt")


@pytest.fixture
def base(tmp_path):
    return tmp_path / "base"


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "clip.safetensors").write_bytes(b"clip")
    return tmp_path / "clip.safetensors"


def place(base, file):
    return server.place(base, "clip_vision", file)


def test_a_file_is_placed_as_a_link_once_and_again(base, clip):
    assert place(base, clip) == place(base, clip) == "clip.safetensors"
    assert (base / CLIP).is_symlink() and (base / CLIP).samefile(clip)


def test_a_file_inside_its_own_base_stays_what_it_is(base):
    (base / CLIP).parent.mkdir(parents=True)
    (base / CLIP).write_bytes(b"mine")
    assert place(base, base / CLIP) == CLIP.name
    assert snapshot(base / "models")["clip_vision/clip.safetensors"] == b"mine"


def test_a_file_of_the_user_is_not_replaced(base, clip):
    (base / CLIP).parent.mkdir(parents=True)
    (base / CLIP).write_bytes(b"mine")
    before = snapshot(base)
    with pytest.raises(HostError, match=r"clip\.safetensors exists, and this program did not"):
        place(base, clip)
    assert snapshot(base) == before


def test_a_folder_of_the_user_is_not_removed(base):
    (base / NODES).mkdir(parents=True)
    (base / NODES / "mine.py").write_text("mine")
    with pytest.raises(HostError, match="image-to-prompt exists, and this program did not"):
        server._prepare(base)
    assert (base / NODES / "mine.py").read_text() == "mine"


def test_a_link_of_the_user_is_not_replaced(base, clip, tmp_path):
    (base / CLIP).parent.mkdir(parents=True)
    (base / CLIP).symlink_to(tmp_path / "gone.safetensors")
    with pytest.raises(HostError, match="did not make"):
        place(base, clip)
    assert os.readlink(base / CLIP) == str(tmp_path / "gone.safetensors")


def test_a_link_of_ours_follows_to_another_file_of_its_name(base, clip, tmp_path):
    place(base, clip)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / clip.name
    other.write_bytes(b"other")
    place(base, other)
    assert (base / CLIP).samefile(other)


def test_a_link_of_ours_that_the_user_has_changed_is_the_users(base, clip, tmp_path):
    place(base, clip)
    (base / CLIP).unlink()
    (base / CLIP).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="did not make"):
        place(base, clip)


def test_a_host_that_the_pack_is_installed_in_is_left_as_it_is(base):
    (base / NODES).parent.mkdir(parents=True)
    (base / NODES).symlink_to(os.path.relpath(PACK, (base / NODES).parent.resolve()))
    before = snapshot(base)
    server._prepare(base)
    assert untouched(before, base) and not (base / placed.RECORD).exists()


@pytest.fixture
def no_links(monkeypatch):
    def refuse(*_, **__):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(placed.Path, "symlink_to", refuse)


def test_without_links_a_copy_is_made_and_replaced_unless_it_was_changed(base, clip, no_links):
    place(base, clip)
    clip.write_bytes(b"newer")
    place(base, clip)
    assert (base / CLIP).read_bytes() == b"newer"
    (base / CLIP).write_bytes(b"changed by the user")
    with pytest.raises(HostError, match="did not make"):
        place(base, clip)
    assert (base / CLIP).read_bytes() == b"changed by the user"


def test_without_links_a_folder_is_copied_and_keeps_what_the_user_adds(base, tmp_path, no_links):
    pack, copy = tmp_path / "pack", base / "pack"
    (pack / "nodes").mkdir(parents=True), (pack / "build").mkdir(), base.mkdir()
    (pack / "nodes" / "a.py").write_text("1")
    placed.link(base, copy, pack)
    (copy / "mine.txt").write_text("mine")
    (pack / "nodes" / "a.py").write_text("22")
    placed.link(base, copy, pack)
    names = {name: content for name, content in snapshot(copy).items() if content is not None}
    assert names == {"nodes/a.py": b"22", "mine.txt": b"mine"}


def test_a_log_of_ours_is_written_again_and_a_file_of_the_user_is_not(base):
    base.mkdir()
    (base / "comfyui.log").write_text("mine")
    ours = placed.own_file(base, "comfyui.log")
    assert ours == base / "comfyui-2.log" == placed.own_file(base, "comfyui.log")
    ours.unlink()
    (base / "comfyui-2.log").write_text("mine too")
    assert placed.own_file(base, "comfyui.log") in (base / "comfyui-3.log", ours)
    assert (base / "comfyui.log").read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"made": {"a": 1}}', "[" * 100_000])
def test_a_file_in_the_place_of_the_record_is_not_replaced(content, base, clip):
    base.mkdir()
    (base / placed.RECORD).write_text(content)
    with pytest.raises(HostError, match="is no record of this program"):
        place(base, clip)
    assert (base / placed.RECORD).read_text() == content


# --- any folder ---------------------------------------------------------------------------------

PLACES = [
    CLIP.as_posix(),
    "models/clip_vision",
    "models/checkpoints/model.safetensors",
    NODES.as_posix(),
    "custom_nodes/other/__init__.py",
    "comfyui.log",
    "paths.yaml",
    "temp/mine.png",
    "user/default/workflow.json",
    placed.RECORD,
    f"{placed.RECORD}.1",
]
CONTENTS = st.sampled_from(["file", "folder", "link to a file", "link to a folder", "dead link"])


def put(path: Path, what: str, outside: Path) -> None:
    """One thing of a user's at this place, unless something is in the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "folder":
            path.mkdir()
            (path / "mine").write_text("mine")
        elif what == "file":
            with path.open("x") as file:
                file.write("mine")
        else:
            targets = {"link to a file": outside / "file", "link to a folder": outside / "folder"}
            path.symlink_to(targets.get(what, outside / "nothing"))
    except (FileExistsError, NotADirectoryError):
        return


@given(
    st.dictionaries(st.sampled_from(PLACES), CONTENTS),
    st.lists(st.sampled_from(["prepare", "clip", "inside", "model", "log"]), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_nothing_that_a_run_did_not_make_is_replaced_or_removed(there, steps):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        outside, base = root / "outside", root / "base"
        (outside / "folder").mkdir(parents=True), base.mkdir()
        for name in ("file", "folder/mine", "clip.safetensors", "model.safetensors"):
            (outside / name).write_text(name)
        for name, what in there.items():
            put(base / name, what, outside)
        before = snapshot(root)
        for step in steps:
            try:
                if step == "prepare":
                    server._prepare(base)
                    with server._scratch(base, {}):
                        pass
                elif step == "log":
                    placed.own_file(base, server.LOG).open("wb").close()
                elif step == "inside":
                    place(base, base / CLIP)
                else:
                    kind = {"clip": "clip_vision", "model": "checkpoints"}[step]
                    server.place(base, kind, outside / f"{step}.safetensors")
            except (HostError, OSError):  # something is in the way, which is said
                continue
        assert untouched(before, root)
        assert not hosts.is_host(base)
