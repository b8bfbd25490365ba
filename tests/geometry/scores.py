"""Scores of a form on real data: does it tell classes apart, and is it like EOS states?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .data import World, offsets
from .forms import Form


@dataclass(frozen=True, eq=False)
class Row:
    """Scores of one row, averaged over its forms.

    hit: (judged,), share of forms that find a class of the photo. draws: (forms, 2), top-1 and
    cosine among results of each form. The rest are means: cosine to the best own class and to
    other classes, top-1 of the concepts' means, top-1 of deviations from the offset, identity
    (a photo finds its own concept among all), length, cosine of the mean result to the offset.
    """

    hit: Tensor
    draws: Tensor
    right: float
    other: float
    among: float
    means: float
    deviations: float
    identity: float
    length: float
    to_offset: float

    @property
    def top1(self) -> float:
        return float(self.hit.mean())


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (n, m) of rows (n, D) and (m, D)."""
    return normalize(a, dim=-1) @ normalize(b, dim=-1).T


def among(rows: Tensor) -> float:
    """Mean cosine of different rows."""
    c = cosines(rows, rows)
    return float((c.sum() - c.trace()) / (c.numel() - len(c)))


def hits(scores: Tensor, own: Tensor) -> Tensor:
    """1 where the best of K scores (n, K) is one of the row's own (n, K): (n,)."""
    return own.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0].double()


def score(world: World, forms: Sequence[Form], pool: str = "scaled") -> Row:
    """The row of these forms, each photo with an offset that knows nothing of its classes."""
    o, d = offsets(world, pool)
    found = [_score(world, form, o, d) for form in forms]
    hit, numbers = (torch.stack(part) for part in zip(*found, strict=True))
    means = dict(zip(_NAMES, numbers.mean(dim=0).tolist(), strict=True))
    draws = torch.stack([hit.mean(dim=1), numbers[:, _NAMES.index("among")]], dim=1)
    return Row(hit=hit.mean(dim=0), draws=draws, **means)


_NAMES = ("right", "other", "among", "means", "deviations", "identity", "length", "to_offset")


def _score(world: World, form: Form, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    k = world.judged
    own, centre = world.own[k], o.mean(dim=0)
    e = form(world.photos[k], o[k], d[k])
    s = cosines(e, world.classes)
    deviations = cosines(e - o[k], world.classes - centre)
    shared = (centre.expand_as(o), d.mean().expand_as(d))
    pairs = cosines(form(world.photos, *shared), form(world.means, *shared))
    numbers = (
        s.masked_fill(~own, -2).max(dim=1).values.mean(),
        s[~own].mean(),
        among(e),
        hits(cosines(form(world.means[k], o[k], d[k]), world.classes), own).mean(),
        hits(deviations, own).mean(),
        (pairs.argmax(dim=1) == torch.arange(len(pairs))).double().mean(),
        e.norm(dim=-1).mean(),
        cosines(e.mean(dim=0)[None], centre[None])[0, 0],
    )
    return hits(s, own), torch.tensor([float(number) for number in numbers], dtype=torch.float64)


def interval(values: Tensor, groups: Tensor | None = None, times: int = 1000) -> tuple:
    """Bootstrap 95 % interval of the mean of values (n,), over rows or groups (n,) of rows."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(times):
        if groups is None:
            pick = torch.randint(len(values), (len(values),), generator=generator)
        else:
            count = int(groups.max()) + 1
            drawn = torch.randint(count, (count,), generator=generator)
            pick = torch.cat([(groups == group).nonzero()[:, 0] for group in drawn])
        found.append(values[pick].mean())
    ends = torch.stack(found).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return tuple(ends.tolist())
