"""Names of files that a server gives: none leads out of the folder, none is hidden."""

import string
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_to_prompt.tests.workflows.trees import snapshot, untouched
from image_to_prompt.workflows.api_client import http, outputs
from image_to_prompt.workflows.api_client.outputs import Output, local_parts

PICTURE = b"\x89PNG\r\n\x1a\n and so on"


@pytest.mark.parametrize(
    ("filename", "subfolder", "local"),
    [
        ("ComfyUI_00001_.png", "", "ComfyUI_00001_.png"),
        ("a.png", "x/y", "x/y/a.png"),
        ("a.png", "x\\y", "x/y/a.png"),
        ("a.png", "../../x", "x/a.png"),
        ("a.png", "/etc", "etc/a.png"),
        ("a.png", "C:\\x", "C_/x/a.png"),
        ("a.png", ".ssh/.git", "ssh/git/a.png"),
        ("../../a.png", "", "a.png"),
        ("/etc/a.png", "", "a.png"),
        (".a.png", "", "a.png"),
        ("...png", "", "output.png"),
        (".png", "", "output.png"),
        ("a\x00b\n.png", "", "a_b_.png"),
        ("a:stream.png", "", "a_stream.png"),
        ("NUL.png", "con", "_con/_NUL.png"),
        ("\u202egnp.png", "", "_gnp.png"),
        ("\udc80.png", "", "_.png"),
        ("B\u00e4r.PNG", "", "B\u00e4r.PNG"),
        ("a .png", "b .", "b/a.png"),
        ("x" * 300 + ".png", "", "x" * 100 + ".png"),
        ("a.png", "/".join("abcdefghijkl"), "a/b/c/d/e/f/g/h/a.png"),
    ],
)
def test_a_name_of_the_server_becomes_a_plain_name_here(filename, subfolder, local):
    assert "/".join(local_parts(Output(filename, subfolder))) == local


# Letters that matter to some file system, and any others.
LETTERS = st.one_of(st.sampled_from("./\\:~ \x00\n%$-" + string.ascii_letters), st.characters())
NAMES = st.one_of(
    st.text(LETTERS, max_size=40),
    st.text(LETTERS, max_size=20).map(lambda stem: f"{stem}.png"),
    st.sampled_from(["x.png", "a/x.png", "../x.png", "../mine/x.png", ".bashrc", "nul.png"]),
)
ITEMS = st.tuples(NAMES, st.one_of(st.just(""), st.just("a"), NAMES))


@given(
    st.lists(ITEMS, max_size=8), st.lists(st.sampled_from(["x.png", "a/x.png", "a"]), max_size=3)
)
@settings(max_examples=100, deadline=None)
def test_what_is_fetched_is_new_and_inside_and_never_hidden(items, there):
    def write(url, file, *_):
        file.write(PICTURE)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "download", write)
        root = Path(folder)
        out = root / "out"
        out.mkdir(), (root / "mine").mkdir(), (root / "mine" / "x.png").write_text("mine")
        for name in there:
            if not (out / name).exists() and not (out / "a").is_file():
                (out / name).parent.mkdir(exist_ok=True)
                (out / name).write_text("mine")
        before = snapshot(root)
        listed = [{"filename": f, "subfolder": s, "type": "output"} for f, s in items]
        try:
            saved = outputs.fetch("http://x", {"outputs": {"1": {"images": listed}}}, out)
        except OSError:  # a file where a folder is wanted
            saved = []
        assert untouched(before, root)
        assert len(set(saved)) == len(saved)
        after = snapshot(root)
        for name in after.keys() - before.keys():
            parts = PurePosixPath(name).parts
            assert parts[0] == "out"
            assert not any(part.startswith(".") for part in parts[1:])
            assert after[name] in (None, PICTURE)
        for path in saved:
            assert path.suffix.lower() == ".png"


def test_a_download_that_breaks_leaves_no_half_of_a_file(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(http, "download", lambda url, file, *_: file.write(PICTURE))
    monkeypatch.setattr(outputs.shutil, "copyfileobj", full)
    nodes = {"1": {"images": [{"filename": "x.png", "type": "output"}]}}
    with pytest.raises(OSError, match="No space"):
        outputs.fetch("http://x", {"outputs": nodes}, tmp_path)
    assert list(tmp_path.iterdir()) == []
