"""Tiles of a picture and of the canvas, with feathered borders that add up to one everywhere.

Each mask is a product of two trapezia, one along each side; together they are a partition of unity
(ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ImageToPromptError

# Sides within this ratio count as square.
_SQUARE = 1.5
_MOST = 8


@dataclass(frozen=True)
class Grid:
    """Equal tiles in columns and rows, read from left to right, then down. 1..8 of each."""

    columns: int
    rows: int

    def __post_init__(self) -> None:
        if not (1 <= self.columns <= _MOST and 1 <= self.rows <= _MOST):
            raise ImageToPromptError(
                f"1 to {_MOST} columns and rows of tiles",
                f"{self.columns} columns and {self.rows} rows",
                "Use fewer tiles.",
            )

    def __len__(self) -> int:
        return self.columns * self.rows

    @classmethod
    def by_aspect(cls, height: int, width: int) -> Grid:
        """Tiles as square as can be along the longer side; 2 x 2 for a picture that is square."""
        ratio = max(height, width) / min(height, width)
        if ratio < _SQUARE:
            return cls(2, 2)
        count = min(_MOST, max(2, round(ratio)))
        return cls(count, 1) if width > height else cls(1, count)

    def cut(self, pictures: Tensor) -> list[Tensor]:
        """The tiles of pictures (B, H, W, C). Raises ImageToPromptError for fewer pixels."""
        height, width = pictures.shape[1:3]
        if height < self.rows or width < self.columns:
            raise ImageToPromptError(
                f"a picture of at least {self.columns}x{self.rows} pixels",
                f"{width}x{height}",
                "Use a larger picture or fewer tiles.",
                "image",
            )
        rows, columns = (
            [round(i * size / count) for i in range(count + 1)]
            for size, count in ((height, self.rows), (width, self.columns))
        )
        return [
            pictures[:, top:bottom, left:right]
            for top, bottom in pairwise(rows)
            for left, right in pairwise(columns)
        ]

    def share_slots(self, prompts: Sequence[Tensor], slots: Tensor) -> Tensor:
        """One prompt (B, L, D) whose slots are shared out equally, tile after tile.

        prompts: of each tile, (B, L, D), text states, equal outside of `slots`. slots: mask (L,)
        of the slots that a picture takes, at least as many as tiles.
        """
        place = slots.cumsum(0) - 1  # of each slot among those that are shared
        owner = torch.div(place * len(self), int(slots.sum()), rounding_mode="floor")
        owner = torch.where(slots, owner, 0)
        stacked = torch.stack(list(prompts))  # (T, B, L, D)
        return stacked[owner, :, torch.arange(len(slots))].transpose(0, 1)

    def masks(self, height: int, width: int, feather: float) -> Tensor:
        """Masks (T, height, width) of the tiles, 0..1, that add up to 1 in every pixel.

        feather: share of a tile's side over which neighbours fade into each other, 0..1.
        """
        down = _windows(height, self.rows, feather)  # (rows, height)
        across = _windows(width, self.columns, feather)  # (columns, width)
        return torch.einsum("rh,cw->rchw", down, across).reshape(len(self), height, width)


def _windows(size: int, count: int, feather: float) -> Tensor:
    """Windows (count, size) along one side: trapezia that add up to 1."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) * count / size  # in tiles
    borders = torch.arange(1, count, dtype=torch.float64)[:, None]
    # For each inner border: 0 before it, 1 behind it, a ramp of the width of the feather across.
    distance = position[None] - borders
    passed = (distance / max(feather, 1e-9) + 0.5).clamp(0, 1)
    edges = torch.cat([torch.ones(1, size), passed.float(), torch.zeros(1, size)])
    return edges[:-1] - edges[1:]
