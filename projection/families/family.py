"""What a model family takes of its text encoders: which states, how wide, and which pooled vector.

| family | parts, joined along the width | states | pads | pooled |
|---|---|---|---|---|
| SD 1.x | CLIP-L 768 | last layer, LayerNorm | EOS | (not read by the U-Net) |
| SD 2.x | OpenCLIP-H 1024 | penultimate, LayerNorm | 0 | W_t h of H (not read by the U-Net) |
| SDXL | CLIP-L 768, OpenCLIP-G 1280 | penultimate | L: EOS, G: 0 | W_t h of G, 1280 |
| SDXL refiner | OpenCLIP-G 1280 | penultimate | 0 | W_t h of G, 1280 |
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ImageToPromptError

EOS_ID = 49407
_MAX_WIDTH = 2**16
_DAMAGED = "The projection file is damaged: make it anew."


@dataclass(frozen=True)
class Part:
    """One text encoder of a family.

    key: its name among the family's parts, such as "l". width: D of its states. pad_id: the
    token that fills a chunk after the first EOS. normed: whether the final LayerNorm is applied
    to the states that the U-Net reads.
    """

    key: str
    width: int
    pad_id: int
    normed: bool

    def __post_init__(self) -> None:
        numbers = (self.width, self.pad_id)
        known = isinstance(self.key, str) and self.key and type(self.normed) is bool
        whole = all(type(number) is int for number in numbers)
        if not (known and whole and 1 <= self.width <= _MAX_WIDTH and 0 <= self.pad_id <= EOS_ID):
            raise ImageToPromptError(
                "a part with a key, a width >= 1 and a pad token",
                f"{self.key!r}, {numbers}, {self.normed!r}",
                _DAMAGED,
                "projection file",
            )


@dataclass(frozen=True)
class Family:
    """A model family. The conditioning joins the states of its parts along their width.

    pooled: key of the part whose projected EOS state W_t h is the pooled vector, (P,). layer: the
    layer whose states the U-Net reads unless the user asks for another; -1 is the last.
    """

    name: str
    parts: tuple[Part, ...]
    pooled: str
    layer: int

    def __post_init__(self) -> None:
        keys = [part.key for part in self.parts]
        different = len(set(keys)) == len(keys) > 0 and self.pooled in keys
        named = isinstance(self.name, str) and type(self.layer) is int
        if not (different and named and self.layer < 0):
            raise ImageToPromptError(
                "a family of different parts, one of them pooled",
                f"parts {keys}, pooled {self.pooled!r}, layer {self.layer}",
                _DAMAGED,
                "projection file",
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its parts, in the order of the conditioning."""
        return tuple(part.key for part in self.parts)

    @property
    def width(self) -> int:
        """Width of the conditioning."""
        return sum(part.width for part in self.parts)

    @property
    def reading_names(self) -> tuple[str, ...]:
        """Names of the readings that a picture needs, such as "l.eos", "l.pad" and "pooled"."""
        each = [f"{key}.{place}" for key in self.keys for place in ("eos", "pad")]
        return (*each, "pooled")

    def part(self, key: str) -> Part:
        """The part of this key. Raises KeyError."""
        return {part.key: part for part in self.parts}[key]


_L = Part("l", 768, EOS_ID, normed=False)
_G = Part("g", 1280, 0, normed=False)

SD1 = Family("SD 1.x", (Part("l", 768, EOS_ID, normed=True),), pooled="l", layer=-1)
SD2 = Family("SD 2.x", (Part("h", 1024, 0, normed=True),), pooled="h", layer=-2)
SDXL = Family("SDXL", (_L, _G), pooled="g", layer=-2)
REFINER = Family("SDXL refiner", (_G,), pooled="g", layer=-2)
FAMILIES = MappingProxyType({family.name: family for family in (SD1, SD2, SDXL, REFINER)})
