"""filename_prefix by itself: what it means and what is refused, the same on every system."""

from __future__ import annotations

import ntpath
import posixpath
from pathlib import PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from image_to_prompt.nodes.inputs.filename_prefix import check_prefix
from image_to_prompt.projection import ImageToPromptError

MEANINGS = {
    "name": "name",
    "styles/": "styles",
    "sub/styles/": "sub/styles",
    "x/./": "x",
    "x/.": "x",
    "./x": "x",
    "a/b/../c/": "a/c",
    "a//b": "a/b",
    "a/../b": "b",
    "sub\\name": "sub/name",
    "sub\\": "sub",
    "a\\..\\b/": "b",
    "%year%-%month%/x": "%year%-%month%/x",
    "..x": "..x",
    "x..": "x..",
    "con-trast": "con-trast",
    "console": "console",
    "com10": "com10",
    "snow ☃ 雪": "snow ☃ 雪",
}
WINDOWS = {
    "D:\\x": "drive",
    "D:/x": "drive",
    "D:x": "drive",
    "c:": "drive",
    "\\\\srv\\share\\x": "server",
    "//srv/share/x": "server",
    "\\\\?\\C:\\x": "drive",
    "name:stream": "colon",
    "sub/name:stream:$DATA": "colon",
    "CON": "device",
    "sub/nul": "device",
    "aux/x": "device",
    "PRN.txt": "device",
    "com1": "device",
    "Lpt9.a.b": "device",
    "com\u00b2": "device",
    "con .x": "device",
}
OUTSIDE = ["/x", "\\x", "..", "../x", "..\\x", "a/../..", "a/../../x", "", " ", ".", "./", "a/.."]
OUTSIDE += ["/", "...", " . ", "a/ "]
UNPRINTABLE = ["a\0b", "a\nb", "\x1b[31mx", "\x7f", "\x9b", "a/\t/b"]
UNPRINTABLE += ["\udc80", "mod\udce8le", "\ud83d"]


@pytest.mark.parametrize("prefix", MEANINGS)
def test_a_prefix_means_one_name_inside_the_folder(prefix):
    assert check_prefix(prefix, "projections") == MEANINGS[prefix]


@pytest.mark.parametrize("prefix", WINDOWS)
def test_what_windows_takes_for_another_place_is_refused_everywhere(prefix):
    with pytest.raises(ImageToPromptError, match=WINDOWS[prefix]) as caught:
        check_prefix(prefix, "projections")
    assert "filename_prefix" in str(caught.value)


@pytest.mark.parametrize("prefix", [*OUTSIDE, *UNPRINTABLE, None, 3, b"x", ["x"], {}], ids=repr)
def test_what_names_no_file_in_the_folder_is_refused(prefix):
    with pytest.raises(ImageToPromptError) as caught:
        check_prefix(prefix, "projections")
    assert str(caught.value).isprintable()


PIECES = st.sampled_from(
    ["/", "\\", ".", "..", ":", "a", "b", " ", "con", "NUL", "com1", "C", "?", "\0", "\udc80", "é"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join))
@example("a/.. /b")
def test_whatever_is_accepted_stays_inside_on_both_systems(prefix):
    try:
        name = check_prefix(prefix, "projections")
    except ImageToPromptError:
        return
    for path, root in ((ntpath, "C:\\models"), (posixpath, "/models")):
        whole = path.normpath(path.join(root, name))
        assert path.commonpath([root, whole]) == root
        assert whole != root
        assert path.basename(whole) and not name.endswith(("/", "\\"))
    assert not any(PureWindowsPath(part).is_reserved() for part in name.split("/"))
    assert check_prefix(name, "projections") == name
