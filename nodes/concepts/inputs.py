"""The sockets and widgets of ImageToPromptMix."""

from __future__ import annotations

from ...projection import CONCEPTS
from ..host.api import io
from ..inputs.embed_inputs import embed_inputs
from ..types import PROJECTION

FROM_B, ONLY, WITHOUT = "take from image_b", "only this", "all but this"
MODES = (FROM_B, ONLY, WITHOUT)
OWN_WORDS = "own words"
CHOICES = (*CONCEPTS, OWN_WORDS)


def mix_inputs() -> list[io.Input]:
    """In their order, which saved graphs rely on."""
    shared = {each.id: each for each in embed_inputs()}
    last = (shared[name] for name in ("text", "text_weight", "strength", "crop", "blend"))
    picture = io.Image.Input("image_a", tooltip="The picture, or a batch of pictures.")
    return [*_models(), picture, *_concept_inputs(), *last, *_optional_inputs()]


def _models() -> list[io.Input]:
    return [
        PROJECTION.Input("projection", tooltip="From Load Projection, for this model."),
        io.Clip.Input(
            "clip",
            tooltip=(
                "The text encoder of the checkpoint. Gives the text, the start token and the "
                "empty prompt, and encodes the words. SD 1.x: CLIP Set Last Layer acts on the "
                "text; the picture is always a last-layer state. SDXL and SD 2.x: the same layer "
                "as when the projection was made."
            ),
        ),
        io.ClipVision.Input(
            "clip_vision",
            tooltip=(
                "The vision encoder of the projection's CLIP: for SD 1.x, and for SDXL unless it "
                "was made with another one, clip-vit-large-patch14."
            ),
        ),
    ]


def _concept_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=FROM_B,
            tooltip=(
                "take from image_b: image_a with the concept of image_b. only this: the concept "
                "of image_a alone; a text can name the rest. all but this: image_a without it."
            ),
        ),
        io.Combo.Input(
            "concept",
            options=list(CHOICES),
            default=CHOICES[0],
            tooltip=(
                "What is taken: style, colours, place or subject, by built-in lists of words. own "
                "words: by the list in words."
            ),
        ),
        io.Float.Input(
            "amount",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="0: image_a as it is. 1: the whole concept. Between: part of it.",
        ),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        io.Image.Input(
            "image_b",
            optional=True,
            tooltip=(
                "The picture whose concept is taken: one for all of image_a, or one for each. The "
                "other two modes do not use it."
            ),
        ),
        io.String.Input(
            "words",
            default="",
            multiline=True,
            optional=True,
            tooltip=(
                "For concept 'own words': at least 3 words or phrases that differ in what is "
                "taken, like 'oak, birch, pine, beech, willow'; commas or line ends separate "
                "them. Name things of one kind, the pictures' own among them."
            ),
        ),
    ]
