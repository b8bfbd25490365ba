"""The rows of the table: forms from pictures' embeddings to prompt embeddings.

A form takes embeddings (B, J), an offset and a spread for each row, (B, D) and (B,), and gives
prompt embeddings (B, D). The recommended rows are the project's own `Projection.apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    MIN_PICTURES,
    PICTURES_SHARE,
    VISUAL_SHARE,
    CaptionStatistics,
    Centred,
    Projection,
    picture_direction,
    visual_direction,
)

from .data import World

Form = Callable[[Tensor, Tensor, Tensor], Tensor]
PICTURES, DRAWS = 16, 40


@dataclass(frozen=True, eq=False)
class Forms:
    """Makes rows for one world. closed: SD-IPC, with a centred form of no particular offset."""

    world: World
    closed: Projection

    @classmethod
    def of(cls, world: World) -> Forms:
        text, visual = world.text.float(), world.visual.float()
        return cls(world, Projection.from_text_projection(text, visual))

    def plain(self, method: str, cutoff: float = 0.0) -> Form:
        """An inverse alone."""
        text, visual = self.world.text.float(), self.world.visual.float()
        projection = Projection.from_text_projection(text, visual, method, cutoff)
        return lambda v, offset, spread: projection.apply(v.float()).double()

    def shifted(self, matrix: Tensor, centre: Tensor | float = 0.0) -> Form:
        """offset + spread unit(M (v - centre)), with M (D, J) and centre (J,)."""
        return lambda v, offset, spread: (
            offset + spread[:, None] * normalize((v - centre) @ matrix.T, dim=-1)
        )

    def centred(
        self, direction: Tensor, removed: float, gap: float = 1.0, **numbers: float
    ) -> Form:
        """The project's centred form with a direction (J,); numbers replace fields of `Centred`."""
        states = torch.cat([self.world.classes, self.world.others])
        statistics = CaptionStatistics.of(states)
        text = self.world.text.float()
        start = Centred.of(text, statistics, direction, removed, gap)

        def form(v: Tensor, offset: Tensor, spread: Tensor) -> Tensor:
            if (offset == offset[0]).all():
                return self._apply(start, numbers, v, offset[0], spread[0])
            rows = zip(v.split(1), offset, spread, strict=True)
            return torch.cat([self._apply(start, numbers, *row) for row in rows])

        return form

    def _apply(
        self, start: Centred, numbers: dict[str, float], v: Tensor, offset: Tensor, spread: Tensor
    ) -> Tensor:
        changes = {"offset": offset.float(), "spread": float(spread)} | numbers
        projection = replace(self.closed, centred=replace(start, **changes))
        return projection.apply(v.float()).double()

    def from_visual(self, **numbers: float) -> list[Form]:
        """Form A: no picture needed."""
        removed = numbers.pop("removed", VISUAL_SHARE)
        return [self.centred(visual_direction(self.world.visual), removed, **numbers)]

    def from_pictures(self, count: int = PICTURES, **numbers: float) -> list[Form]:
        """Form B: one form for each draw of `count` of the concepts' mean embeddings."""
        removed = numbers.pop("removed", PICTURES_SHARE)
        drawn = self.draws(count)
        return [self.centred(picture_direction(rows), removed, **numbers) for rows in drawn]

    def draws(self, count: int = PICTURES) -> list[Tensor]:
        """Sets (count, J) of the concepts' mean embeddings."""
        found = []
        for seed in range(DRAWS):
            order = torch.Generator().manual_seed(100 + seed)
            pick = torch.randperm(len(self.world.means), generator=order)[:count]
            found.append(self.world.means[pick])
        return found


A, B = "A: W_v's direction", f"B: {PICTURES} pictures"
CONTROL = "CONTROL offset alone"


def rows(world: World) -> dict[str, list[Form]]:
    """Name -> the row's forms; scores are averaged over them."""
    forms = Forms.of(world)
    inverse, transpose = forms.closed.matrix.double(), world.text.T
    first = visual_direction(world.visual)
    less = torch.eye(len(first), dtype=torch.float64) - torch.outer(first, first)
    noise = torch.randn(inverse.shape, dtype=torch.float64, generator=torch.Generator())
    smallest = 1e-5 * float(forms.closed.singular_values[0])
    laion = world.laion.mean(dim=0)
    found = {
        "paper, cutoff .3": [forms.plain("pseudo-inverse")],
        "transpose": [forms.plain("transpose")],
        "uncut": [forms.plain("pseudo-inverse", smallest)],
        "ridge .3": [forms.plain("ridge", 0.3)],
        "ridge 1": [forms.plain("ridge", 1.0)],
        CONTROL: [lambda v, offset, spread: offset.clone()],
        "CONTROL offset + random M": [forms.shifted(noise)],
        "offset + W+, 1 direction removed": [forms.shifted(inverse @ less)],
        "offset + W_t', 1 direction removed": [forms.shifted(transpose @ less)],
        "offset + W+ (v - mean of 16)": [
            forms.shifted(inverse, drawn.mean(0)) for drawn in forms.draws()
        ],
        "offset + W_t' (v - mean of 16)": [
            forms.shifted(transpose, drawn.mean(0)) for drawn in forms.draws()
        ],
        A: forms.from_visual(),
        B: forms.from_pictures(),
        f"B: {MIN_PICTURES} pictures": forms.from_pictures(MIN_PICTURES),
        "B: 32 pictures": forms.from_pictures(32),
        "B: LAION's mean": [forms.centred(laion, PICTURES_SHARE)],
    }
    for gap in (0.25, 0.5, 0.75):
        found[f"A, gap {gap}"] = forms.from_visual(gap=gap)
        found[f"B, gap {gap}"] = forms.from_pictures(gap=gap)[:4]
    return found | {
        "A, offset share 1": forms.from_visual(offset_share=1.0),
        "B, offset share 1": forms.from_pictures(offset_share=1.0)[:12],
        "B, all of the mean removed": forms.from_pictures(removed=1.0)[:12],
    }
