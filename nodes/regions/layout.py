"""ImageToPromptLayout: the tiles of a picture, each as the prompt of its part of the canvas."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...projection import Projection
from ...projection.prompt.conditioning import image_slots
from ...projection.regions.tiles import Grid
from ..families.embed import each_alone, family_embeds, family_prompt
from ..host import api as host
from ..host.api import io
from ..host.families.clip import encode_family_text
from ..host.vision import image_embeddings
from ..inputs.advice import with_advice
from ..inputs.checks import check_choice, check_number, check_share, check_text, rgb
from ..inputs.embed_inputs import PAD_RULES
from ..inputs.layout_inputs import MODES, TILES, layout_inputs
from ..prompts.pairing import check_models
from ..prompts.rows import entries
from ..types import CATEGORY

# The host scales masks to the latent, whose longer side is rarely more than this.
_MASK_SIDE = 256


class ImageToPromptLayout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["regional prompt", "tiles", "area composition", "image layout"],
            node_id="ImageToPromptLayout",
            display_name="Image To Prompt Layout",
            category=CATEGORY,
            description=(
                "Cuts a picture into tiles and gives each tile's prompt its part of the canvas, so "
                "that things stay where they are. One CONDITIONING for core's samplers. Each tile "
                "is one more pass of the model on its area. SD 1.x, SD 2.x and SDXL."
            ),
            inputs=layout_inputs(),
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip="The prompts of the whole picture and of its tiles, for a sampler.",
                )
            ],
        )

    @classmethod
    @with_advice
    def execute(
        cls,
        projection: Projection,
        clip: Any,
        clip_vision: Any,
        image: Tensor,
        tiles: str,
        mode: str,
        text: str,
        text_weight: float,
        strength: float,
        whole: float,
        feather: float,
    ) -> io.NodeOutput:
        check_choice(tiles, TILES, "tiles")
        check_choice(mode, MODES, "mode")
        check_text(text, "text")
        factors = [(check_number(text_weight, "text_weight"), check_number(strength, "strength"))]
        check_share(whole, "whole")
        check_share(feather, "feather")
        models = (check_models(projection, clip, clip_vision), clip, clip_vision)
        pictures = rgb(image, "none")
        grid = _grid(tiles, pictures)

        def prompt(part: Tensor) -> list:
            return _prompt(*models, part, text, factors)

        parts = [prompt(part) for part in grid.cut(pictures)]
        if mode == MODES[1]:
            return io.NodeOutput(_shared(grid, parts, *_ends(projection, clip, text)))
        masks = grid.masks(*_mask_size(pictures), feather)
        under = prompt(pictures) if whole > 0 else []
        under = [[states, {**extras, "strength": float(whole)}] for states, extras in under]
        return io.NodeOutput(under + _placed(parts, masks))


def _prompt(
    projection: Projection, clip: Any, clip_vision: Any, part: Tensor, text: str, factors: list
) -> list:
    """CONDITIONING of pictures (B, H, W, 3), whole as they are."""
    readings, singles = projection.readings, part.split(1)
    if readings is not None:
        embeds = family_embeds(projection, clip_vision, singles, "none")
        states = each_alone(readings, embeds, factors)
        return family_prompt(readings, clip, states, text, factors, "add", PAD_RULES[0])
    found = image_embeddings(clip_vision, singles, "none", projection.vision)
    embeddings = torch.cat([projection.apply(v) for v in found])
    return entries(projection, clip, text, embeddings, factors)


def _grid(tiles: str, pictures: Tensor) -> Grid:
    if tiles == TILES[0]:
        return Grid.by_aspect(*pictures.shape[1:3])
    columns, rows = tiles.split("x")
    return Grid(int(columns), int(rows))


def _mask_size(pictures: Tensor) -> tuple[int, int]:
    """Height and width of masks in the picture's proportions."""
    height, width = pictures.shape[1:3]
    scale = _MASK_SIDE / max(height, width)
    return math.ceil(scale * height), math.ceil(scale * width)


def _placed(parts: list[list], masks: Tensor) -> list:
    """The tiles' prompts on their masks; the host samples the area around each mask only."""
    return [
        [
            states,
            {**extras, "mask": mask[None], "mask_strength": 1.0, "set_area_to_bounds": True},
        ]
        for part, mask in zip(parts, masks, strict=True)
        for states, extras in part
    ]


def _ends(projection: Projection, clip: Any, text: str) -> tuple[list[int], bool]:
    """Where the text's chunks end, and whether pooled vectors are the family's own."""
    if projection.readings is None:
        return host.encode_text(clip, text).eos, False
    encoded = encode_family_text(clip, text, projection.readings.family)
    return list(next(iter(encoded.prompts[0].eos.values()))), True


def _shared(grid: Grid, parts: list[list], eos: list[int], pooled: bool) -> list:
    """One prompt whose slots the tiles share.

    Its pooled output is the mean of the tiles' where pooled vectors are the family's own.
    """
    made = []
    for same in zip(*parts, strict=True):  # the same entry of each tile
        slots, extras = image_slots(eos, same[0][0]), same[0][1]
        if pooled:
            vectors = torch.stack([each["pooled_output"] for _, each in same])
            extras = {**extras, "pooled_output": vectors.mean(dim=0)}
        made.append([grid.share_slots([states for states, _ in same], slots), extras])
    return made


NODES = [ImageToPromptLayout]
