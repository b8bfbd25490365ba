"""Reads shape, colours, position, size and rotation back from pixels, or says it cannot.

Colours come from the border and from what differs from it; the shape is the rendered template
that explains the figure's cover best. Nothing here is learnt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import MAX_RADIUS, MIN_RADIUS, PALETTE, SHAPES, SIDE, Scenes, coverage

PERIODS = tuple(math.radians(degrees) for degrees in (0, 90, 120, 90, 72, 0))  # per shape
TURN = math.radians(6)  # step of the template search
MIN_CONTRAST = 0.3  # figure and ground must differ by this much (Euclidean RGB) ...
MAX_COLOUR_ERROR = 0.3  # ... and be this close to a named colour
MAX_MISFIT = 0.30  # largest summed cover error of the best template, as a share of its area
SIZES = (0.92, 1.0, 1.08)


@dataclass(frozen=True)
class Reading:
    """What a picture shows; `scenes` is only meaningful where `readable` (N,) is true."""

    scenes: Scenes
    readable: Tensor
    misfit: Tensor


def read(pictures: Tensor) -> Reading:
    """Readings of pictures (N, 3, 64, 64) in [0, 1]; unreadable ones are flagged, not guessed."""
    parts = [_read_one(picture) for picture in pictures]
    columns = [torch.stack(column) for column in zip(*parts, strict=True)]
    return Reading(Scenes(*columns[:7]), columns[7], columns[8])


def _read_one(picture: Tensor) -> tuple[Tensor, ...]:
    ground_rgb = _border(picture).median(dim=1).values
    distance = (picture - ground_rgb[:, None, None]).square().sum(dim=0).sqrt()
    contrast = distance.flatten().topk(40).values.median()
    inside = distance >= 0.7 * contrast  # a flat picture is all inside, and then unreadable
    figure_rgb = picture[:, inside].median(dim=1).values
    ground, ground_error = _name(ground_rgb)
    figure, figure_error = _name(figure_rgb)
    cover = _cover(picture, ground_rgb, figure_rgb)
    shape, x, y, radius, angle, misfit = fit(cover)
    readable = (
        (contrast > MIN_CONTRAST)
        & (max(ground_error, figure_error) < MAX_COLOUR_ERROR)
        & (figure != ground)
        & (misfit < MAX_MISFIT)
        & (radius > 0.7 * MIN_RADIUS)
        & (radius < 1.3 * MAX_RADIUS)
    )
    return shape, figure, ground, x, y, radius, angle, readable, misfit


def _border(picture: Tensor, width: int = 2) -> Tensor:
    frame = torch.ones(SIDE, SIDE, dtype=torch.bool)
    frame[width:-width, width:-width] = False
    return picture[:, frame]


def _name(rgb: Tensor) -> tuple[Tensor, Tensor]:
    distances = (PALETTE - rgb).norm(dim=-1)
    return distances.argmin(), distances.min()


def _cover(picture: Tensor, ground: Tensor, figure: Tensor) -> Tensor:
    """Share of figure colour per pixel (64, 64), by projection on the line between the colours."""
    line = (figure - ground)[:, None, None]
    share = ((picture - ground[:, None, None]) * line).sum(dim=0)
    return (share / line.square().sum().clamp(min=1e-6)).clamp(0, 1)


def fit(cover: Tensor) -> tuple[Tensor, ...]:
    """Best template's shape, centre, radius, angle, and misfit."""
    solid = F.relu(cover - 0.2) / 0.8  # faint noise far away must not pull the centre
    axis = torch.arange(SIDE) + 0.5
    area = solid.sum().clamp(min=1e-3)
    x, y = (solid.sum(0) * axis).sum() / area, (solid.sum(1) * axis).sum() / area
    best = _search(cover, TABLE_SHAPE, x, y, TABLE_UNIT * area.sqrt(), TABLE_ANGLE)
    keep = best.topk(4, largest=False).indices
    return _refine(cover, x, y, area, keep)


def _search(
    cover: Tensor, shape: Tensor, x: Tensor, y: Tensor, radius: Tensor, angle: Tensor
) -> Tensor:
    """Misfit of each template: summed absolute cover error over the template's area."""
    n = len(shape)
    scenes = Scenes(shape, shape, shape, x.expand(n), y.expand(n), radius, angle)
    template = coverage(scenes)
    error = (template - cover).abs().sum(dim=(1, 2))
    return error / template.sum(dim=(1, 2)).clamp(min=1)


def _refine(cover: Tensor, x: Tensor, y: Tensor, area: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
    """Local search around the best coarse templates: angle, radius, then centre."""
    shape = TABLE_SHAPE[keep].repeat_interleave(len(FINE))
    radius = (TABLE_UNIT * area.sqrt())[keep].repeat_interleave(len(FINE))
    radius = radius * FINE[:, 0].repeat(len(keep))
    angle = TABLE_ANGLE[keep].repeat_interleave(len(FINE)) + FINE[:, 1].repeat(len(keep))
    misfit = _search(cover, shape, x, y, radius, angle)
    pick = misfit.argmin()
    period = PERIODS[int(shape[pick])]
    turn = angle[pick]
    if period:
        turn = torch.remainder(turn + period / 2, period) - period / 2
    return shape[pick], x, y, radius[pick], turn, misfit[pick]


def _table() -> tuple[Tensor, Tensor, Tensor]:
    """Shape, radius of unit area and angle of every coarse template."""
    shapes, units, angles = [], [], []
    for index, period in enumerate(PERIODS):
        one = torch.tensor([index])
        middle = torch.tensor([SIDE / 2])
        probe = Scenes(one, one, one, middle, middle, torch.tensor([20.0]), torch.zeros(1))
        unit = 20.0 / float(coverage(probe).sum().sqrt())
        for k in range(max(1, round(period / TURN))):
            shapes.append(index)
            units.append(unit)
            angles.append(k * TURN - period / 2)
    return torch.tensor(shapes), torch.tensor(units), torch.tensor(angles)


TABLE_SHAPE, TABLE_UNIT, TABLE_ANGLE = _table()
FINE = torch.cartesian_prod(torch.tensor(SIZES), torch.arange(-3, 4) * TURN / 6)


def agreement(reading: Reading, truth: Scenes) -> dict[str, Tensor]:
    """Per picture (N,): right shape and colours (unreadable counts as wrong), errors in pixels.

    Errors are NaN where the picture is unreadable: they say how good the readable ones are.
    """
    seen, ok = reading.scenes, reading.readable
    distance = torch.hypot(seen.x - truth.x, seen.y - truth.y)
    return {
        "shape": ok & (seen.shape == truth.shape),
        "figure_colour": ok & (seen.figure == truth.figure),
        "ground_colour": ok & (seen.ground == truth.ground),
        "position_error": torch.where(ok, distance, torch.nan),
        "size_error": torch.where(ok, (seen.radius - truth.radius).abs(), torch.nan),
    }


def describe(picture: Tensor) -> str | None:
    """One picture (3, 64, 64) in words, or None where it cannot be read."""
    reading = read(picture[None])
    if not bool(reading.readable[0]):
        return None
    from .captions import FULL, write

    scene = reading.scenes[:1]
    return write(FULL[0], torch.stack([scene.shape[0], scene.figure[0], scene.ground[0]]))


assert len(PERIODS) == len(SHAPES)
