"""Weights of a prompt against a base prompt, for each cross-attention block of a U-Net.

    c_b = base + w_b (c - base)        in every slot; w_b: the weight of block b

It is the rule of `conditioning.apply_strength` with the base in place of the empty prompt, block
by block. That blocks differ in what they take from a prompt: P+ (Voynov et al. 2023), InstantStyle
(Wang et al. 2024). "style" and "composition" are those of IPAdapter_plus by name and block; of
"composition" nothing is confirmed here, see tests/miniature/RESULTS.md. "inner blocks" are those
at the lowest resolutions, two in SD 1.x and one in SDXL, "outer blocks" the others: in P+ the inner
ones decide on structure, the outer ones on appearance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ImageToPromptError, quoted

Block = tuple[str, int]
# In the order in which the U-Net runs them; the position is the block's number.
SD1_BLOCKS: tuple[Block, ...] = (
    *(("input", index) for index in (1, 2, 4, 5, 7, 8)),
    ("middle", 0),
    *(("output", index) for index in range(3, 12)),
)
SDXL_BLOCKS: tuple[Block, ...] = (
    *(("input", index) for index in (4, 5, 7, 8)),
    ("middle", 0),
    *(("output", index) for index in range(6)),
)
_BY_WIDTH = {768: SD1_BLOCKS, 1024: SD1_BLOCKS, 2048: SDXL_BLOCKS}
_SD1_STYLE = dict.fromkeys((0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15), 1.0)
_SD1_COMPOSITION = {4: 0.25, 5: 1.0}
_SD1_INNER = range(4, 10)  # input 7 and 8, middle, output 3 to 5
_SDXL_INNER = range(2, 8)  # input 7 and 8, middle, output 0 to 2
_PRESETS = {
    "style": {SD1_BLOCKS: _SD1_STYLE, SDXL_BLOCKS: {6: 1.0}},
    "composition": {SD1_BLOCKS: _SD1_COMPOSITION, SDXL_BLOCKS: {3: 1.0}},
    "style and composition": {
        SD1_BLOCKS: _SD1_STYLE | _SD1_COMPOSITION,
        SDXL_BLOCKS: {3: 1.0, 6: 1.0},
    },
    "inner blocks": {
        SD1_BLOCKS: dict.fromkeys(_SD1_INNER, 1.0),
        SDXL_BLOCKS: dict.fromkeys(_SDXL_INNER, 1.0),
    },
    "outer blocks": {
        blocks: dict.fromkeys((n for n in range(len(blocks)) if n not in inner), 1.0)
        for blocks, inner in ((SD1_BLOCKS, _SD1_INNER), (SDXL_BLOCKS, _SDXL_INNER))
    },
}
PRESETS = tuple(_PRESETS)
_LARGEST = 10.0
_KINDS = {"in": "input", "mid": "middle", "out": "output"}
_ENTRY = re.compile(
    r"(?:(?P<kind>in|out|mid)(?:put|dle)?\s*)?(?P<first>\d{1,3})?(?:\s*-\s*(?P<last>\d{1,3}))?"
    r"\s*[:=]\s*(?P<weight>\S+)"
)


@dataclass(frozen=True)
class BlockWeights:
    """The weight of each block; `rest` is that of blocks which are not named. Immutable."""

    weights: Mapping[Block, float]
    rest: float = 0.0

    def of(self, block: Block) -> float:
        """The weight of a block, for instance ("input", 4)."""
        return self.weights.get(block, self.rest)

    @property
    def constant(self) -> float | None:
        """The weight that all blocks have, None where they differ."""
        return self.rest if all(w == self.rest for w in self.weights.values()) else None

    def mean(self, width: int) -> float:
        """The mean weight over the blocks of the model family of this width."""
        blocks = _BY_WIDTH.get(width) or tuple(self.weights) or (("middle", 0),)
        return math.fsum(self.of(block) for block in blocks) / len(blocks)


def preset_weights(preset: str, width: int) -> BlockWeights:
    """The weights of a preset for prompts of a width; 768 and 1024: SD 1.x and 2.x, 2048: SDXL.

    Raises ImageToPromptError for an unknown preset or a model family without presets.
    """
    blocks = _blocks(width)
    if preset not in _PRESETS:
        raise _refusal(f"a preset among {', '.join(map(repr, PRESETS))}", quoted(preset))
    numbered = _PRESETS[preset][blocks]
    return BlockWeights({blocks[number]: weight for number, weight in numbered.items()})


def parse_block_weights(text: str, width: int) -> BlockWeights:
    """Weights from 'input 4: 1, output 3-5: 0.5, rest: 0', '3: 1, 6: 0.5' or a list of numbers.

    Numbers without a name count the blocks in the order in which the U-Net runs them, from 0; a
    list has one for each. width: D of the prompt. Raises ImageToPromptError for texts of another
    form, block numbers that the width does not have, and weights beyond -10 to 10.
    """
    entries = [entry.strip().lower() for entry in re.split(r"[,;\n]", text) if entry.strip()]
    if not entries:
        raise _refusal("weights of blocks", "none")
    if not any(":" in entry or "=" in entry for entry in entries):
        blocks = _blocks(width)
        if len(entries) != len(blocks):
            raise _refusal(f"{len(blocks)} weights, one per block", f"{len(entries)}")
        values = [_number(entry) for entry in entries]
        # All blocks are named, so that the rest is free to make one weight for all recognisable.
        return BlockWeights(dict(zip(blocks, values, strict=True)), values[0])
    weights: dict[Block, float] = {}
    rest = 0.0
    for entry in entries:
        name, _, value = entry.replace("=", ":").partition(":")
        if name.strip() == "rest":
            rest = _number(value)
        else:
            weights |= dict.fromkeys(_named(entry, width), 0.0 + _number(value))
    return BlockWeights(weights, rest)


def _named(entry: str, width: int) -> list[Block]:
    """The blocks that an entry such as 'output 3-5: 1' names."""
    found = _ENTRY.fullmatch(entry)
    kind = _KINDS.get(found["kind"] or "") if found else None
    if not found or (found["first"] is None and kind != "middle"):
        raise _refusal("entries like 'input 4: 1', '3: 0.5' or 'rest: 0'", quoted(entry))
    first = int(found["first"] or 0)
    numbers = range(first, int(found["last"] or first) + 1)
    if kind is not None:
        return [(kind, number) for number in numbers]
    blocks = _blocks(width)
    if not numbers or numbers[-1] >= len(blocks):
        raise _refusal(f"numbers of blocks from 0 to {len(blocks) - 1}", quoted(entry))
    return [blocks[number] for number in numbers]


def _number(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= _LARGEST:  # true for NaN
        raise _refusal(f"weights from -{_LARGEST:g} to {_LARGEST:g}", quoted(text.strip()))
    return weight


def _blocks(width: int) -> tuple[Block, ...]:
    if width not in _BY_WIDTH:
        widths = ", ".join(map(str, _BY_WIDTH))
        raise _refusal(f"prompts of width {widths}, whose blocks are known", f"width {width}")
    return _BY_WIDTH[width]


def _refusal(expected: str, got: str) -> ImageToPromptError:
    return ImageToPromptError(expected, got, "Correct the weights of the blocks.", "block weights")
