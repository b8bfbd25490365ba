"""The workflows for SDXL."""

from __future__ import annotations

from image_to_prompt.workflows.authoring.format.graph import Graph, Node
from image_to_prompt.workflows.authoring.node_specs import SDXL_CHECKPOINT
from image_to_prompt.workflows.authoring.sd1 import (
    LOAD,
    PROMPT,
    TRAIN,
    TRAINED_PROMPT,
    TRAINED_SAMPLE,
    Sd1,
)
from image_to_prompt.workflows.authoring.sdxl import notes


class Sdxl(Sd1):
    """As `Sd1`, with the projection made for the checkpoint's own text encoders, and saved."""

    def __init__(self, note: str) -> None:
        Graph.__init__(self)
        self.models(note, ckpt_name=SDXL_CHECKPOINT)
        self.projection = self.add("LoadProjection", (LOAD, 260), clip=self.checkpoint.out(1))

    def finish_sdxl(self, prompt: Node, name: str) -> Sd1:
        """The rest at SDXL's own size, and the projection saved."""
        saved = {"projection": self.projection.out(), "filename_prefix": "sdxl"}
        self.add("SaveProjection", (PROMPT, 580), **saved)
        return self.finish(prompt, self.empty_text(), name, width=1024, height=1024)


def sdxl_variation() -> Graph:
    """A picture is the whole prompt of SDXL."""
    graph = Sdxl(notes.VARIATION)
    return graph.finish_sdxl(graph.embed(graph.picture(0)), "sdxl_variation")


def sdxl_edit() -> Graph:
    """A picture and a text together, with SDXL."""
    graph = Sdxl(notes.EDIT)
    return graph.finish_sdxl(graph.embed(graph.picture(0), text="in the snow"), "sdxl_edit")


def sdxl_refine() -> Graph:
    """Thirty steps on a picture at SDXL's own size, then variations of it."""
    graph = Sdxl(notes.REFINE)
    picture = graph.picture(0)
    refined = graph.train("OnlineRefine", picture, 560, size=1024)
    saved = {"projection": refined.out(1), "filename_prefix": "sdxl_refined"}
    graph.add("SaveProjection", (TRAIN, 920), **saved)
    prompt = graph.embed(picture, x=TRAINED_PROMPT, projection=refined.out(1))
    return graph.finish(
        prompt,
        graph.empty_text(x=TRAINED_PROMPT),
        "sdxl_refine",
        TRAINED_SAMPLE,
        width=1024,
        height=1024,
        model=refined.out(0),
    )
