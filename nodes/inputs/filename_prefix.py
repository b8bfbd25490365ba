"""Rules for filename_prefix: one meaning and one set of refusals on every system."""

from __future__ import annotations

import ntpath
import unicodedata

from ...projection import ImageToPromptError

# Windows opens a device under these names, in any folder and with any ending.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"]
)


def check_prefix(prefix: object, folder: str) -> str:
    """A prefix as folder names and a file name with single slashes, inside a folder.

    Both slashes separate, `.` and empty parts are left out, and `..` takes back the part before it:
    `a/./b//../c/` is `a/c`. folder: how the message calls the folder. Raises ImageToPromptError for
    no text, no name, a path that is absolute or leads out, and names that some system cannot hold.
    """
    if not isinstance(prefix, str):
        raise _refusal("filename_prefix as a text", type(prefix).__name__)
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in prefix):
        got = f"control characters or half a character in {prefix!r}"
        raise _refusal(f"a file name inside the {folder} folder", got)
    if ":" in prefix or ntpath.splitdrive(prefix)[0]:
        got = f"{prefix!r}, with a drive, a server or a colon"
        raise _refusal(f"a file name inside the {folder} folder", got)
    parts = _parts(prefix)
    if not parts or not parts[-1].strip(" ."):
        raise _refusal(f"a file name inside the {folder} folder", repr(prefix))
    for part in parts:
        if part.split(".")[0].rstrip().lower() in _RESERVED:
            got = f"{part!r}, the name of a device on Windows"
            raise _refusal(f"a file name inside the {folder} folder", got)
    return "/".join(parts)


def _parts(prefix: str) -> list[str]:
    """The parts of a relative path; none where it is absolute or leads out of its folder."""
    parts: list[str] = []
    names = prefix.replace("\\", "/").split("/")
    if not names[0] and len(names) > 1:
        return []
    for name in names:
        if name == ".." and not parts:
            return []
        if name == "..":
            parts.pop()
        elif name not in ("", "."):
            parts.append(name)
    return parts


def _refusal(expected: str, got: str) -> ImageToPromptError:
    return ImageToPromptError(expected, got, "Correct filename_prefix.")
