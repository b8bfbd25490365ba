"""Makes the pictures that ComfyUI's template browser shows: python workflows/authoring thumbnails

Runs every workflow with the trained miniature on the first ComfyUI found, and writes the result,
with its reference pictures in the corners, beside the workflow's file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from image_to_prompt.workflows import demo, run
from image_to_prompt.workflows.api_client.inputs import nodes_of
from image_to_prompt.workflows.authoring import build
from image_to_prompt.workflows.authoring.node_specs import NODE_SPECS
from image_to_prompt.workflows.comfyui import hosts, server

SIDE, INSET, FRAME = 384, 112, 4
LIMIT = 40_000  # bytes: shown in a list of many
STEERED = ("edit", "refine_and_edit", "sdxl_edit")  # workflows with a text
WIDE = {"two_regions": 192, "layout": 192}  # two squares side by side
FITTED, EPOCHS = 12, 2  # pictures and epochs: enough to show what the workflow does


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
    width, height = (max(1, round(length * scale)) for length in picture.size)
    square = Image.new("RGB", (side, side), "white")
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(small, ((side - width) // 2, (side - height) // 2))
    return square


def settings_for(name: str, common: dict[str, object], base: Path) -> dict[str, object]:
    """What to fill into one workflow of the host on `base`."""
    settings = common | (sdxl_settings(base) if name.startswith("sdxl_") else {})
    if name in WIDE:
        settings["width"] = WIDE[name]
    if name == "fit_on_a_folder":
        settings["FitProjection.epochs"] = EPOCHS
    if name == "mix_two_pictures":
        from image_to_prompt.workflows.demo_parts.miniature import COLOURS

        # The miniature knows no styles: the ground is what it can take.
        settings["ImageToPromptMix.concept"] = "own words"
        settings["ImageToPromptMix.words"] = ", ".join(f"{c} background" for c in COLOURS)
    if name == "sdxl_variation":
        # The one good one of 8: without pictures whose mean is removed, pandas become penguins.
        settings["seed"] = 14
    if name == "use_a_fit":  # its own: the file that fit_on_a_folder has left
        del settings["projection_file"]
    return settings


def sdxl_settings(base: Path) -> dict[str, object]:
    """What SDXL's workflows have in place of the others': its miniature's file and captions."""
    from image_to_prompt.workflows.demo_parts import miniature

    return {
        "checkpoint": server.place(base, "checkpoints", miniature.sdxl_checkpoint()),
        # The miniature's text encoders know few words of the built-in captions.
        "LoadProjection.corpus_size": 0,
        "LoadProjection.captions": "\n".join(miniature.known_captions()),
    }


def references_for(name: str, references: Sequence[Path], count: int, scratch: Path) -> list[Path]:
    """The pictures of one workflow: two grounds for a mix, two things side by side for a layout."""
    if name == "mix_two_pictures":
        return [references[0], references[2]]
    if name == "layout":
        pair = [Image.open(path) for path in references[:2]]
        wide = Image.new("RGB", (sum(each.width for each in pair), pair[0].height))
        for place, each in enumerate(pair):
            wide.paste(each, (place * pair[0].width, 0))
        wide.save(scratch / "pair.png")
        return [scratch / "pair.png"]
    return list(references[:count])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="authoring thumbnails", description=__doc__)
    parser.add_argument("names", nargs="*", help="workflows, such as mix_two_pictures; all if none")
    options = parser.parse_args(argv)
    from image_to_prompt.workflows.demo_parts import miniature

    source = miniature.weights()
    if source.untrained:
        print(f"Not made: {source}", file=sys.stderr)
        return 1
    host = hosts.first()
    base, scratch = run.BASES / f"thumbnails-{host.folder.name}", demo.OUT / "thumbnails"
    given = demo.MINIATURE | {"text_weight": demo.TEXT_WEIGHT}
    files = demo.Files(*miniature.wide_files(source), str(source), given)
    settings = demo.settings_of(files, base) | {"seed": 9}  # a good one of 14
    pictures = miniature.world_pictures(scratch)
    references = [reference.path for reference in pictures]
    folder = str(NODE_SPECS["LoadImageDataSetFromFolder"].widgets["folder"])
    miniature.training_pictures(base / "input" / folder, FITTED)
    with server.start(host, base) as url:
        for number, make in enumerate(build.GRAPHS, 1):
            name, graph = make.__name__, make().api()
            if options.names and name not in options.names:
                continue
            used = references_for(name, references, len(nodes_of(graph, "LoadImage")), scratch)
            texts = [pictures[0].edits[0]] if name in STEERED else []
            values = settings_for(name, settings, base)
            [result] = run.run_workflow(url, graph, scratch, used, texts, values)
            print(compose(result, used, build.HERE / f"{number}_{name}.jpg"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
