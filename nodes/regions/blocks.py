"""ImageToPromptBlocks: a prompt in some cross-attention blocks, a base prompt in the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...projection import ImageToPromptError
from ...projection.prompt.block_weights import (
    PRESETS,
    BlockWeights,
    parse_block_weights,
    preset_weights,
)
from ..host import api as host
from ..host.api import io
from ..host.model.block_hook import PARTS, BlockPatch, hook_group, with_hooks
from ..inputs.advice import with_advice
from ..inputs.checks import check_choice, check_conditioning, check_text
from ..types import CATEGORY

CUSTOM = "custom"


class ImageToPromptBlocks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["style transfer", "composition", "block weights", "layer weights"],
            node_id="ImageToPromptBlocks",
            display_name="Image To Prompt Blocks",
            category=CATEGORY,
            description=(
                "Gives the picture's prompt to some cross-attention blocks of the U-Net and a base "
                "prompt to the others, with presets named style and composition. The CONDITIONING "
                "carries this as a hook; the MODEL stays as it is. SD 1.x, SD 2.x and SDXL."
            ),
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The picture's prompt, from Image To Prompt Embed."
                ),
                io.Conditioning.Input(
                    "base", tooltip="The prompt of the other blocks, from CLIP Text Encode."
                ),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, CUSTOM],
                    default=PRESETS[0],
                    tooltip=(
                        "style: the blocks that IPAdapter_plus calls style transfer. composition: "
                        "those that it calls composition. inner blocks: those at the lowest "
                        "resolutions. outer blocks: the others. custom: the weights below."
                    ),
                ),
                io.String.Input(
                    "weights",
                    default="",
                    tooltip=(
                        "For 'custom': 'input 4: 1, output 3-5: 0.5, rest: 0', block numbers like "
                        "'3: 1, 6: 0.5', or a weight for each block. 1: the picture. 0: the base."
                    ),
                ),
                io.Combo.Input(
                    "part",
                    options=list(PARTS),
                    default=PARTS[0],
                    tooltip=(
                        "What is weighted. keys and values: the whole prompt. keys: where the "
                        "prompt acts is weighted. values: what it adds is weighted."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip="The prompt with its block weights, for a sampler's positive.",
                )
            ],
        )

    @classmethod
    @with_advice
    def execute(
        cls, conditioning: Any, base: Any, preset: str, weights: str, part: str
    ) -> io.NodeOutput:
        check_conditioning(conditioning, "conditioning")
        check_conditioning(base, "base")
        check_choice(preset, [*PRESETS, CUSTOM], "preset")
        check_choice(part, PARTS, "part")
        check_text(weights, "weights")
        width = conditioning[0][0].shape[-1]
        found = (
            parse_block_weights(weights, width)
            if preset == CUSTOM
            else preset_weights(preset, width)
        )
        _check_pairs(conditioning, base)
        if found.constant == 1:
            return io.NodeOutput(conditioning)
        if found.constant == 0 and part == PARTS[0]:
            return io.NodeOutput(base)
        return io.NodeOutput(_hooked(conditioning, base, found, part))


def _check_pairs(conditioning: list, base: list) -> None:
    """Raise ImageToPromptError unless one base, or one each, of the same width."""
    if len(base) not in (1, len(conditioning)):
        raise ImageToPromptError(
            f"a base of one part, or of {len(conditioning)} as the picture's prompt",
            f"{len(base)} parts",
            "Connect one CLIP Text Encode (socket base), and combine behind this node.",
        )
    widths = sorted({prompt.shape[-1] for prompt, _ in [*conditioning, *base]})
    if len(widths) > 1:
        raise ImageToPromptError(
            "two prompts of one model family",
            f"prompts of widths {' and '.join(map(str, widths))}",
            "Encode both with the CLIP of one checkpoint (sockets conditioning, base).",
        )


def _hooked(conditioning: list, base: list, weights: BlockWeights, part: str) -> list:
    bases = base * len(conditioning) if len(base) == 1 else base
    groups: dict[tuple[int, int], Any] = {}  # entries of one base and length run in one batch
    made = []
    for (prompt, extras), (other, other_extras) in zip(conditioning, bases, strict=True):
        key = (id(other), prompt.shape[1])
        if key not in groups:
            groups[key] = hook_group(BlockPatch(weights, other, prompt.shape[1], part))
        mean = weights.mean(prompt.shape[-1])
        pooled = _pooled(extras.get("pooled_output"), other_extras.get("pooled_output"), mean)
        made.append([prompt, with_hooks({**extras, **pooled}, groups[key])])
    return made


def _pooled(own: Tensor | None, base: Tensor | None, weight: float) -> dict[str, Tensor]:
    """The pooled output at the blocks' mean weight; SDXL reads it outside of its blocks."""
    if own is None or base is None or own.shape[-1] != base.shape[-1]:
        return {}
    return {"pooled_output": torch.lerp(base.to(own).expand_as(own), own, weight)}


NODES = [ImageToPromptBlocks]
