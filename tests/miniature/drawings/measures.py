"""What is measured of each drawn picture, and tables with 95 % intervals of it.

thing, artist: by the nearest real drawing, nothing learnt (`oracle.py`); the artist is the hand of
the nearest drawing of the thing asked for. judge: the thing by the trained judge, which no model
has seen. position and size: errors in pixels against the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..experiments.scores import share
from . import models, oracle
from .world import SIDE, Scenes

Outcome = dict[str, Tensor]
SHARES = ("thing", "judge", "ground", "artist")
ERRORS = ("position", "size")
DRAWS = 2000


def measured(pictures: Tensor, scenes: Scenes, judge: models.Judge) -> Outcome:
    """Per picture (N,) of pictures (N, 3, 96, 96) in [0, 1]: hits, errors in pixels, likeness."""
    seen, nearest = oracle.read(pictures), oracle.nearest_drawing(pictures, scenes.thing)
    with torch.no_grad():
        judged = judge(pictures)[0].argmax(dim=-1)
    return {
        "thing": nearest.thing == scenes.thing,
        "judge": judged == scenes.thing,
        "ground": seen.ground == scenes.ground,
        "artist": nearest.artist_of_thing == scenes.artist,
        "position": torch.hypot(seen.x - SIDE * scenes.x, seen.y - SIDE * scenes.y),
        "size": (seen.size - SIDE * scenes.size).abs(),
        "likeness": nearest.correlation,
    }


def joined(parts: list[Outcome]) -> Outcome:
    """Outcomes of several sets of pictures as one."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def median(values: Tensor) -> dict[str, float]:
    """Median of (N,) values with its 95 % bootstrap interval."""
    found = values[picks(len(values))].median(dim=1).values.sort().values
    low, high = found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS)]
    return {"value": float(values.median()), "low": float(low), "high": float(high)}


def difference(mine: Tensor, other: Tensor) -> dict[str, float]:
    """Mean difference of two rows on the same pictures with its 95 % bootstrap interval."""
    apart = mine.float() - other.float()
    found = apart[picks(len(apart))].mean(dim=1).sort().values
    low, high = found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS)]
    return {"value": float(apart.mean()), "low": float(low), "high": float(high)}


def picks(count: int) -> Tensor:
    """Bootstrap samples (DRAWS, N) of N pictures, always the same."""
    return torch.randint(count, (DRAWS, count), generator=torch.Generator().manual_seed(0))


def scores(found: Outcome) -> dict[str, dict]:
    """Shares and median errors of a row, with their intervals."""
    shares = {name: share(found[name]) for name in SHARES}
    return shares | {name: median(found[name]) for name in ERRORS}


def shown(score: dict[str, float], places: int = 2) -> str:
    """A score as text: value, low to high."""
    value, low, high = (f"{score[key]:.{places}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
