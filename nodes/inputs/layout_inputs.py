"""The sockets and widgets of ImageToPromptLayout."""

from __future__ import annotations

from ...projection import PAPER_TEXT_WEIGHT
from ..host.api import io
from ..types import PROJECTION

TILES = ("by aspect", "2x1", "1x2", "2x2", "3x1", "1x3", "3x3")
MODES = ("areas", "slots")
WHOLE_STRENGTH = 0.1  # of the whole picture under its tiles, whose masks add up to 1
FEATHER = 0.25


def layout_inputs() -> list[io.Input]:
    """In their order, which saved graphs rely on."""
    return [*_sockets(), *_tiles(), *_text(), *_shares()]


def _sockets() -> list[io.Input]:
    return [
        PROJECTION.Input("projection", tooltip="From Load Projection, for this model."),
        io.Clip.Input("clip", tooltip="The text encoder of the checkpoint."),
        io.ClipVision.Input("clip_vision", tooltip="The vision encoder of the same CLIP."),
        io.Image.Input(
            "image",
            tooltip="The picture, or a batch of one size. The canvas should have its proportions.",
        ),
    ]


def _tiles() -> list[io.Input]:
    return [
        io.Combo.Input(
            "tiles",
            options=list(TILES),
            default=TILES[0],
            tooltip=(
                "Columns x rows. by aspect: nearly square tiles along the longer side of a wide or "
                "tall picture, 2x2 for others. Choose tiles that each hold one thing."
            ),
        ),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip=(
                "areas: each tile's prompt acts on its part of the canvas, at one more pass of the "
                "model a tile. slots: the tiles share the slots of one prompt, at no cost; what "
                "they show is mixed, and places are lost."
            ),
        ),
    ]


def _text() -> list[io.Input]:
    return [
        io.String.Input(
            "text",
            default="",
            multiline=True,
            dynamic_prompts=True,
            tooltip="Steers all tiles, for instance 'in the snow'. Empty: the picture alone.",
        ),
        io.Float.Input(
            "text_weight",
            default=PAPER_TEXT_WEIGHT,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="As in Image To Prompt Embed.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip="As in Image To Prompt Embed: 0 is the empty prompt, 1 the picture.",
        ),
    ]


def _shares() -> list[io.Input]:
    return [
        io.Float.Input(
            "whole",
            default=WHOLE_STRENGTH,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip=(
                "For 'areas': how strongly the whole picture's prompt acts under its tiles. Higher "
                "joins them better, lower keeps them apart; 0 leaves it out."
            ),
        ),
        io.Float.Input(
            "feather",
            default=FEATHER,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="For 'areas': how far tiles fade into each other, as a share of a tile's side.",
        ),
    ]
