"""The sockets and widgets of ImageToPromptEmbed."""

from __future__ import annotations

from ...projection import BLENDS, PAPER_TEXT_WEIGHT
from ..host.api import io
from ..types import PROJECTION

SLOTS = "one prompt from all, slots shared"
TRAVEL = "travel between images"
IMAGES = ("one prompt per image", "one prompt from all", SLOTS, TRAVEL)
FROM_ALL = (IMAGES[1], SLOTS)  # these take every picture of a batch or list
CROPS = ("center", "none")
PAD_RULES = ("picture", "text encoder")
MASK_USES = ("hide the rest", "crop to mask")
# What an option of `images` takes as a whole list; other lists give one CONDITIONING an item.
WHOLE = {
    IMAGES[0]: (),
    IMAGES[1]: ("image", "mask"),
    SLOTS: ("image", "mask"),
    TRAVEL: ("image", "mask", "text_weight", "strength"),
}


def embed_inputs() -> list[io.Input]:
    """In their order, which saved graphs rely on."""
    return [*_first_inputs(), *_part_inputs()]


def _part_inputs() -> list[io.Input]:
    """The part of the picture that counts, and the frames of an animation."""
    return [
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip=(
                "Only the masked part of the picture counts, as painted in the mask editor. Leave "
                "some of the background around the thing. Invert Mask: all but the thing."
            ),
        ),
        io.Combo.Input(
            "mask_use",
            options=list(MASK_USES),
            default=MASK_USES[0],
            optional=True,
            tooltip=(
                "hide the rest: CLIP attends to the masked part only; soft edges count less. crop "
                "to mask: CLIP encodes the square around the mask, which suits small things."
            ),
        ),
        io.String.Input(
            "frames",
            default="",
            optional=True,
            tooltip=(
                "For 'travel between images': the frame of each picture, like '0, 24, 48'. Makes "
                "one row a frame, from 0 to the last. Empty: 16 frames apart."
            ),
        ),
    ]


def _first_inputs() -> list[io.Input]:
    return [
        PROJECTION.Input("projection", tooltip="From Load Projection, for this model."),
        io.Clip.Input(
            "clip",
            tooltip=(
                "The text encoder of the checkpoint. Gives the text, the start token and the "
                "empty prompt. SD 1.x: CLIP Set Last Layer acts on these; the picture is always a "
                "last-layer state, which is what the projection can invert. SDXL and SD 2.x: the "
                "same layer as when the projection was made."
            ),
        ),
        io.ClipVision.Input(
            "clip_vision",
            tooltip=(
                "The vision encoder of the projection's CLIP: for SD 1.x, and for SDXL unless it "
                "was made with another one, clip-vit-large-patch14."
            ),
        ),
        io.Image.Input(
            "image",
            tooltip="The picture, or a batch. Any size; the vision encoder gets it at 224x224.",
        ),
        io.String.Input(
            "text",
            default="",
            multiline=True,
            dynamic_prompts=True,
            tooltip=(
                "Steers the picture, for instance 'in the snow'. Core's syntax works: (word:1.2), "
                "embedding:name. Empty: the picture alone."
            ),
        ),
        io.Float.Input(
            "text_weight",
            default=PAPER_TEXT_WEIGHT,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip=(
                "How much of the text is added to the picture's slots. 0.6 is the paper's script; "
                "0.3 to 1.2 is the useful range; higher follows the text more. Without a text it "
                "has no effect."
            ),
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip=(
                "0: the empty prompt. 1: the picture (and text) as in the paper. Between: weaker. "
                "Above 1: exaggerated. Below 0: away from the picture."
            ),
        ),
        io.Combo.Input(
            "images",
            options=list(IMAGES),
            default=IMAGES[0],
            tooltip=(
                "For a batch. one prompt per image: image i steers latent i of the batch. "
                "one prompt from all: their mean, one prompt for everything. slots shared: "
                "each picture has its own share of the prompt's 76 slots. "
                "travel between images: one row a frame, from picture to picture, see frames."
            ),
        ),
        io.Combo.Input(
            "crop",
            options=list(CROPS),
            default=CROPS[0],
            tooltip=(
                "center: the middle square, without the borders of wide and tall pictures. "
                "none: the whole picture, squeezed to a square."
            ),
        ),
        io.Combo.Input(
            "blend",
            options=list(BLENDS),
            default="add",
            optional=True,
            tooltip=(
                "How text joins the picture. add: plain sum, as in the paper's script; slots grow "
                "with text_weight. add, keep length: the sum scaled back to the usual length, "
                "gentler at high text_weight."
            ),
        ),
        io.String.Input(
            "image_weights",
            default="",
            optional=True,
            tooltip=(
                "For 'one prompt from all' and its slots: a number for each image, like '1, 0.5, "
                "2'. Higher counts more, 0 leaves an image out, below 0 takes it away from the "
                "others. Empty: all equal."
            ),
        ),
        io.Combo.Input(
            "pads",
            options=list(PAD_RULES),
            default=PAD_RULES[0],
            optional=True,
            tooltip=(
                "For SDXL and SD 2.x: the slots after the end token. picture: what they would be "
                "after a sentence that says the same. text encoder: those of the text, or of the "
                "empty prompt, so that the picture has one slot of each encoder. SD 1.x ignores it."
            ),
        ),
    ]
