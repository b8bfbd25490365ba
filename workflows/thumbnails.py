"""Makes the pictures that ComfyUI's template browser shows: python workflows/thumbnails.py

Runs every workflow with the trained miniature on the first ComfyUI found, and writes the result,
with its reference pictures in the corners, beside the workflow's file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from PIL import Image

from image_to_prompt.workflows import build, demo, hosts, material, run, server
from image_to_prompt.workflows.fill import nodes_of

SIDE, INSET, FRAME = 384, 112, 4
LIMIT = 40_000  # bytes: shown in a list of many
STEERED = ("edit", "refine_and_edit")  # workflows with a text
WIDE = {"two_regions": 128}  # two squares side by side


def compose(result: Path, references: Sequence[Path], out: Path) -> Path:
    """The result as a square, with its references in the lower corners, as a small JPEG."""
    with Image.open(result) as picture:
        sheet = _square(picture.convert("RGB"), SIDE)
    for number, reference in enumerate(references):
        with Image.open(reference) as picture:
            inset = Image.new("RGB", (INSET, INSET), "white")
            inset.paste(_square(picture.convert("RGB"), INSET - 2 * FRAME), (FRAME, FRAME))
        sheet.paste(inset, (0 if number == 0 else SIDE - INSET, SIDE - INSET))
    sheet.save(out, quality=85, optimize=True)
    return out


def _square(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture on a white square."""
    scale = side / max(picture.size)
    small = picture.resize([max(1, round(s * scale)) for s in picture.size], Image.BICUBIC)
    square = Image.new("RGB", (side, side), "white")
    square.paste(small, [(side - s) // 2 for s in small.size])
    return square


def main() -> int:
    source = material.weights()
    if source.untrained:
        print(f"Not made: {source}", file=sys.stderr)
        return 1
    host = hosts.first()
    base, scratch = run.BASES / f"demo-{host.folder.name}", demo.OUT / "thumbnails"
    files = demo.Files(*material.wide_files(source), str(source), dict(demo.MINIATURE))
    settings = demo.settings_of(files, base) | {"seed": 1}
    pictures = material.world_pictures(scratch)
    references = [reference.path for reference in pictures]
    with server.start(host, base) as url:
        for number, make in enumerate(build.GRAPHS, 1):
            name, graph = make.__name__, make().api()
            used = references[: len(nodes_of(graph, "LoadImage"))]
            texts = list(pictures[0].edits) if name in STEERED else []
            width = {"width": WIDE[name]} if name in WIDE else {}
            [result] = run.run_workflow(url, graph, scratch, used, texts, settings | width)
            print(compose(result, used, build.HERE / f"{number}_{name}.jpg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
