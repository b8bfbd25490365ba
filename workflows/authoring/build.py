"""Writes the workflows, for the page and for the API, from one description of each graph.

    python workflows/authoring build

After a change of a node or of a graph run it again; a test fails while the files are stale.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from image_to_prompt.workflows.authoring import notes
from image_to_prompt.workflows.authoring.format.graph import Graph
from image_to_prompt.workflows.authoring.sd1 import LOAD, PROMPT, REGION, REGIONS_WIDTH, TRAIN, Sd1
from image_to_prompt.workflows.authoring.sdxl.graphs import sdxl_edit, sdxl_refine, sdxl_variation

HERE = Path(__file__).resolve().parents[1]


def variation() -> Graph:
    """A picture is the whole prompt."""
    graph = Sd1(notes.VARIATION)
    prompt = graph.embed(graph.picture(0))
    return graph.finish(prompt, graph.empty_text(), "variation")


def edit() -> Graph:
    """A picture and a text together."""
    graph = Sd1(notes.EDIT)
    prompt = graph.embed(graph.picture(0), text="in the snow")
    return graph.finish(prompt, graph.empty_text(), "edit")


def several_references() -> Graph:
    """One prompt from two pictures, weighted."""
    graph = Sd1(notes.SEVERAL_REFERENCES)
    first, second = graph.picture(0), graph.picture(1)
    batch = graph.add("ImageBatch", (PROMPT, 600), image1=first.out(), image2=second.out())
    prompt = graph.embed(batch, images="one prompt from all", image_weights="1, 0.5")
    return graph.finish(prompt, graph.empty_text(), "several_references")


def negative_picture() -> Graph:
    """Towards one picture, away from another."""
    graph = Sd1(notes.NEGATIVE_PICTURE)
    wanted, unwanted = graph.picture(0), graph.picture(1)
    positive = graph.embed(wanted)
    negative = graph.embed(unwanted, row=1, strength=0.5)
    return graph.finish(positive, negative, "negative_picture")


def two_regions() -> Graph:
    """One picture on the left, another on the right, with a seam that both share."""
    graph = Sd1(notes.TWO_REGIONS)
    pictures = [graph.picture(0), graph.picture(1)]
    areas = [
        graph.add(
            "ConditioningSetAreaPercentage",
            (REGION, 420 * row),
            conditioning=graph.embed(picture, row).out(),
            width=0.55,
            x=x,
        )
        for row, (picture, x) in enumerate(zip(pictures, (0.0, 0.45), strict=True))
    ]
    both = graph.add(
        "ConditioningCombine",
        (REGION, 220),
        conditioning_1=areas[0].out(),
        conditioning_2=areas[1].out(),
    )
    x = REGION + REGIONS_WIDTH
    return graph.finish(both, graph.empty_text(2), "two_regions", x, width=768)


def fit_on_a_folder() -> Graph:
    """A projection fitted to the pictures of a folder, saved, and tried on another picture."""
    graph = Sd1(notes.FIT_ON_A_FOLDER)
    folder = graph.add("LoadImageDataSetFromFolder", (LOAD, 580))
    picture = graph.add("LoadImage", (LOAD, 700))
    fitted = graph.train("FitProjection", folder, 530)
    graph.add("SaveProjection", (TRAIN, 890), projection=fitted.out(1), filename_prefix="fitted")
    return graph.finish_trained(fitted, picture, "fit_on_a_folder")


def use_a_fit() -> Graph:
    """A saved fit: one projection for the prompt and for the model."""
    graph = Sd1(notes.USE_A_FIT, projection="fitted_00001_.safetensors")
    model = graph.add(
        "ApplyProjection",
        (PROMPT, 580),
        model=graph.checkpoint.out(0),
        projection=graph.projection.out(),
    )
    prompt = graph.embed(graph.picture(0))
    return graph.finish(prompt, graph.empty_text(), "use_a_fit", model=model.out())


def refine_and_vary() -> Graph:
    """Thirty steps on a picture, then variations of it."""
    graph = Sd1(notes.REFINE_AND_VARY)
    picture = graph.picture(0)
    refined = graph.train("OnlineRefine", picture, 560)
    return graph.finish_trained(refined, picture, "refine_and_vary")


def refine_and_edit() -> Graph:
    """Thirty steps on a picture, then a text changes it."""
    graph = Sd1(notes.REFINE_AND_EDIT)
    picture = graph.picture(0)
    refined = graph.train("OnlineRefine", picture, 560, keep_texts="in the snow")
    return graph.finish_trained(refined, picture, "refine_and_edit", text="in the snow")


def mix_two_pictures() -> Graph:
    """One picture with the style of another."""
    graph = Sd1(notes.MIX_TWO_PICTURES)
    prompt = graph.add(
        "ImageToPromptMix",
        (PROMPT, 0),
        projection=graph.projection.out(),
        clip=graph.checkpoint.out(1),
        clip_vision=graph.clip_vision.out(),
        image_a=graph.picture(0).out(),
        image_b=graph.picture(1).out(),
    )
    negative = graph.add("CLIPTextEncode", (PROMPT, 540), clip=graph.checkpoint.out(1))
    return graph.finish(prompt, negative, "mix_two_pictures")


def layout() -> Graph:
    """The tiles of a wide picture, each on its part of the canvas."""
    graph = Sd1(notes.LAYOUT)
    prompt = graph.add(
        "ImageToPromptLayout",
        (PROMPT, 0),
        projection=graph.projection.out(),
        clip=graph.checkpoint.out(1),
        clip_vision=graph.clip_vision.out(),
        image=graph.picture(0).out(),
        tiles="2x1",
    )
    return graph.finish(prompt, graph.empty_text(), "layout", width=768)


def blocks() -> Graph:
    """The style of a picture on what a text describes."""
    graph = Sd1(notes.BLOCKS)
    picture = graph.embed(graph.picture(0))
    base = graph.add(
        "CLIPTextEncode", (PROMPT, 450), clip=graph.checkpoint.out(1), text="a house by a lake"
    )
    prompt = graph.add(
        "ImageToPromptBlocks", (REGION, 0), conditioning=picture.out(), base=base.out()
    )
    return graph.finish(prompt, graph.empty_text(2), "blocks", REGION + 450)


# Numbered in the file names, so that the page lists them from simple to hard.
GRAPHS: tuple[Callable[[], Graph], ...] = (
    variation,
    edit,
    several_references,
    negative_picture,
    two_regions,
    fit_on_a_folder,
    use_a_fit,
    refine_and_vary,
    refine_and_edit,
    sdxl_variation,
    sdxl_edit,
    sdxl_refine,
    mix_two_pictures,
    layout,
    blocks,
)


def files() -> dict[Path, str]:
    """The text of every workflow file, by its path from this folder."""
    texts = {}
    for number, graph in enumerate(GRAPHS, 1):
        name = graph.__name__
        texts[Path(f"{number}_{name}.json")] = _text(graph().page())
        texts[Path("api", f"{name}.json")] = _text(graph().api())
    return texts


def _text(content: dict) -> str:
    return json.dumps(content, indent=1) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="authoring build", description=__doc__).parse_args(argv)
    for path, text in files().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
