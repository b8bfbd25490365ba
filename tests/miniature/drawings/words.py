"""The concepts of this world by words of one's own, as a user of the node Mix writes them."""

from __future__ import annotations

from torch import Tensor

from image_to_prompt.projection import Concept, Projection, visual_direction, without

from ..experiments.concepts import joint
from .sampling import Miniature
from .world import COLOURS, THINGS

WORDS = {"thing": list(THINGS), "ground": [f"{colour} background" for colour in COLOURS]}


def left_out(mini: Miniature, form: Projection, embeds: Tensor, attribute: str) -> Tensor:
    """Image embeddings (N, 96) without the attribute, beside the mean picture that the node takes.

    That is the direction of a form that closes the gap, else the first one of W_v.
    """
    if form.centred is not None:
        direction = form.centred.direction
    else:
        direction = visual_direction(mini.clip.visual_projection.weight.detach()).float()
    return without(embeds, Concept.of(joint(mini, WORDS[attribute])), direction=direction)
