"""Writes the workflows, for the page and for the API, from one description of each graph.

    python workflows/authoring build

After a change of a node or of a graph run it again; a test fails while the files are stale.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from image_to_prompt.workflows.authoring import notes
from image_to_prompt.workflows.authoring.graph import Graph, Node, Output
from image_to_prompt.workflows.authoring.node_specs import SDXL_CHECKPOINT

HERE = Path(__file__).resolve().parents[1]

# Columns of the page, from left to right.
NOTE, LOAD, PROMPT, REGION, SAMPLE = -440, 0, 400, 860, 860
REGIONS_WIDTH, SAMPLE_WIDTH = 390, 360
TRAIN, TRAINED_PROMPT, TRAINED_SAMPLE = 400, 860, 1320  # where something is trained


class Sd1(Graph):
    """The part that every workflow has: three files in, one picture out."""

    def __init__(self, note: str, projection: str | None = None) -> None:
        super().__init__()
        self._models(note)
        file = {"file": projection} if projection else {}
        self.projection = self.add("LoadProjection", (LOAD, 260), **file)

    def _models(self, note: str, **checkpoint: object) -> None:
        """The note, the checkpoint and the vision model."""
        self.add("MarkdownNote", (NOTE, 0), **{"": note})
        self.checkpoint = self.add("CheckpointLoaderSimple", (LOAD, 0), **checkpoint)
        self.clip_vision = self.add("CLIPVisionLoader", (LOAD, 150))

    def picture(self, row: int) -> Node:
        return self.add("LoadImage", (LOAD, 580 + 370 * row))

    def embed(
        self,
        image: Node,
        row: int = 0,
        x: int = PROMPT,
        projection: Output | None = None,
        **widgets: object,
    ) -> Node:
        return self.add(
            "ImageToPromptEmbed",
            (x, 420 * row),
            projection=projection or self.projection.out(),
            clip=self.checkpoint.out(1),
            clip_vision=self.clip_vision.out(),
            image=image.out(),
            **widgets,
        )

    def empty_text(self, row: int = 1, x: int = PROMPT) -> Node:
        return self.add("CLIPTextEncode", (x, 420 * row), clip=self.checkpoint.out(1))

    def train(self, name: str, images: Node, height: int, **widgets: object) -> Node:
        """A training node with its curve below."""
        trained = self.add(
            name,
            (TRAIN, 0),
            model=self.checkpoint.out(0),
            vae=self.checkpoint.out(2),
            clip=self.checkpoint.out(1),
            clip_vision=self.clip_vision.out(),
            projection=self.projection.out(),
            image=images.out(),
            **widgets,
        )
        self.add("PreviewImage", (TRAIN, height), images=trained.out(2))
        return trained

    def finish_trained(self, trained: Node, picture: Node, name: str, **widgets: Any) -> Sd1:
        """A picture through what was trained."""
        x = TRAINED_PROMPT
        prompt = self.embed(picture, x=x, projection=trained.out(1), **widgets)
        negative = self.empty_text(x=x)
        return self.finish(prompt, negative, name, TRAINED_SAMPLE, model=trained.out(0))

    def finish(
        self,
        positive: Node,
        negative: Node,
        name: str,
        x: int = SAMPLE,
        width: int = 512,
        model: Output | None = None,
        height: int | None = None,
    ) -> Sd1:
        """Sample, decode and save, in columns from `x` on."""
        size = {"width": width} if height is None else {"width": width, "height": height}
        latent = self.add("EmptyLatentImage", (x, 320), **size)
        sampled = self.add(
            "KSampler",
            (x, 0),
            model=model or self.checkpoint.out(0),
            positive=positive.out(),
            negative=negative.out(),
            latent_image=latent.out(),
        )
        decoded = self.add("VAEDecode", (x, 490), samples=sampled.out(), vae=self.checkpoint.out(2))
        self.add("SaveImage", (x + SAMPLE_WIDTH, 0), images=decoded.out(), filename_prefix=name)
        return self


class Sdxl(Sd1):
    """As `Sd1`, with the projection made for the checkpoint's own text encoders, and saved."""

    def __init__(self, note: str) -> None:
        Graph.__init__(self)
        self._models(note, ckpt_name=SDXL_CHECKPOINT)
        self.projection = self.add("LoadProjection", (LOAD, 260), clip=self.checkpoint.out(1))

    def finish_sdxl(self, prompt: Node, name: str) -> Sd1:
        """The rest at SDXL's own size, and the projection saved."""
        saved = {"projection": self.projection.out(), "filename_prefix": "sdxl"}
        self.add("SaveProjection", (PROMPT, 580), **saved)
        return self.finish(prompt, self.empty_text(), name, width=1024, height=1024)


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


def sdxl_variation() -> Graph:
    """A picture is the whole prompt of SDXL."""
    graph = Sdxl(notes.SDXL_VARIATION)
    return graph.finish_sdxl(graph.embed(graph.picture(0)), "sdxl_variation")


def sdxl_edit() -> Graph:
    """A picture and a text together, with SDXL."""
    graph = Sdxl(notes.SDXL_EDIT)
    return graph.finish_sdxl(graph.embed(graph.picture(0), text="in the snow"), "sdxl_edit")


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
