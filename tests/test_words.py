"""The words of the source: the field's terms, no word of nodes in the library, no dead link."""

from __future__ import annotations

import re
from pathlib import Path

from image_to_prompt.tests.source import ROOT, name_of, sources, tracked

BINARY = {".safetensors", ".png", ".jpg", ".webp", ".gif"}
HELP = ROOT / "nodes" / "web" / "docs"


def test_projection_says_no_word_of_nodes_and_sockets():
    names = {path.stem for path in HELP.glob("*.md")}
    words = re.compile(rf"\b(?:socket|widget|node)s?\b|\b(?:{'|'.join(names)})\b", re.I)
    assert words.search("the socket") and words.search("LoadProjection")
    report(words, sources("projection"))


def test_words_are_the_fields_own():
    """No word of house style that stands for a term of the field by a metaphor."""
    words = re.compile(
        r"\bhears?\b|\bheard\b|\bdeaf\b|\blouder\b|\bas loud\b"
        r"|(?<!\")\blisten(?:s|ing)?\b"
        r"|\b(?:keeps?|leaves?|keeping|whose|its|their|the) say\b|\bdrowned\b|\bvision half\b"
        r"|\bone look\b|\blooks? at\b|Bildh\u00e4lfte|zu sagen|\u89c6\u89c9\u90e8\u5206",
        re.I,
    )
    assert words.search("texts keep their say") and words.search("die Bildh\u00e4lfte")
    pages = [*ROOT.glob("*.md"), *HELP.glob("*.md")]
    pages += [*(ROOT / "locales").rglob("*.json"), *(ROOT / ".github").glob("*.md")]
    pages.append(ROOT / "workflows" / "authoring" / "notes.py")
    report(words, [*sources("projection", "nodes"), *pages])


# Put together, so that this file does not hold what it forbids.
PLACES = ("/" + "work/", "/" + "root/", "/" + "home/" + r"\w+/", r"[A-Z]:\\Users")


def test_no_file_names_a_folder_of_one_machine():
    words = re.compile("|".join(PLACES))
    assert words.search("see /" + "root/comfy")
    report(words, [path for path in tracked() if path.suffix not in BINARY])


def report(words: re.Pattern, paths: list[Path]) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:90]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert not found, "\n".join(found)


def test_links_and_paths_in_texts_lead_to_files():
    dead = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        dead += [f"{name_of(page)}: {link}" for link in links if not (page.parent / link).exists()]
        # Paths into the rooms, and files: a user's own folders and files of a model are neither.
        rooms = r"`((?:projection|nodes|workflows|tests|locales|\.github)/[\w./-]*)`"
        paths = re.findall(rooms, text)
        dead += [f"{name_of(page)}: {path}" for path in paths if not (ROOT / path).exists()]
    assert not dead, "\n".join(dead)


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "## Development" in text
    words = [word for word in text.split("## Development")[0].split() if re.search(r"\w", word)]
    assert len(words) <= 900  # the bars of tables are no words
