"""Domains for fitting experiments.

corner: figures of the world as it is, all in the lower left, which the captions never say.
Two domains that no part of the miniature was trained on:
outlines: the outline of a shape on a ground that fades from one colour to another.
pairs: two small figures side by side on a plain ground.
These come with captions and with what the oracle can tell about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .oracle import fit
from .scenes import (
    COLOURS,
    MIN_RADIUS,
    PALETTE,
    REACH,
    SHAPES,
    SIDE,
    Scenes,
    coverage,
    place,
    sample,
    signed_distance,
)

STROKE = 1.75  # half the width of an outline in pixels
PAIR_RADIUS = (9.0, 12.0)


def sample_corner(count: int, part: str, generator: torch.Generator) -> Scenes:
    """`count` scenes of a part of the world with small figures near the lower left corner."""
    scenes = sample(count, part, generator)
    u = torch.rand(3, count, generator=generator)
    radius = MIN_RADIUS + 3 * u[0]
    margin = REACH * radius + 1
    put = {"radius": radius, "x": margin + 5 * u[1], "y": SIDE - margin - 5 * u[2]}
    return Scenes(**vars(scenes) | put)


@dataclass(frozen=True)
class Outlines:
    """Scenes whose ground fades from `scenes.ground` at the top to `below` (N,) at the bottom."""

    scenes: Scenes
    below: Tensor


def sample_outlines(count: int, generator: torch.Generator) -> Outlines:
    """Random outlines; figure and both grounds differ."""
    order = torch.rand(count, len(COLOURS), generator=generator).argsort(dim=-1)[:, :3]
    shape = torch.randint(len(SHAPES), (count, 1), generator=generator)
    scenes = place(torch.cat([shape, order[:, :2]], dim=-1), generator)
    return Outlines(scenes, order[:, 2])


def fade(outlines: Outlines) -> Tensor:
    """The grounds alone, (N, 3, 64, 64)."""
    t = ((torch.arange(SIDE) + 0.5) / SIDE)[None, None, :, None]
    top, bottom = (PALETTE[c][:, :, None, None] for c in (outlines.scenes.ground, outlines.below))
    return (top + t * (bottom - top)).expand(-1, -1, -1, SIDE)


def render_outlines(outlines: Outlines) -> Tensor:
    """Pictures (N, 3, 64, 64) in [0, 1]."""
    cover = (0.5 + STROKE - signed_distance(outlines.scenes).abs()).clamp(0, 1)[:, None]
    ground = fade(outlines)
    return ground + cover * (PALETTE[outlines.scenes.figure][:, :, None, None] - ground)


def caption_outlines(outlines: Outlines) -> list[str]:
    """One caption each."""
    s = outlines.scenes
    rows = zip(s.shape, s.figure, s.ground, outlines.below, strict=True)
    return [
        f"{COLOURS[f]} outline of a {SHAPES[k]}, gradient from {COLOURS[a]} to {COLOURS[b]}"
        for k, f, a, b in rows
    ]


def read_outline(picture: Tensor) -> tuple[int, int, int]:
    """Figure colour, upper and lower ground colour of one picture (3, 64, 64), as indices.

    The ground is a straight line in y through the border; the figure's colour is the median of
    what lies farthest from it. The shape of a thin line is left to the eye.
    """
    edge = torch.cat([picture[:, :, :2], picture[:, :, -2:]], dim=-1).mean(dim=-1)  # (3, 64)
    t = (torch.arange(SIDE) + 0.5) / SIDE
    basis = torch.stack([1 - t, t], dim=-1)  # (64, 2)
    ends = torch.linalg.lstsq(basis, edge.T).solution  # (2, 3): top and bottom colour
    ground = (basis @ ends).T[:, :, None]
    distance = (picture - ground).square().sum(dim=0)
    far = distance.flatten().topk(100).indices
    figure = picture.flatten(1)[:, far].median(dim=1).values
    named = [int((PALETTE - rgb).norm(dim=-1).argmin()) for rgb in (figure, *ends)]
    return named[0], named[1], named[2]


@dataclass(frozen=True)
class Pairs:
    """Two figures on one ground: `left` and `right` share `ground` (N,)."""

    left: Scenes
    right: Scenes


def sample_pairs(count: int, generator: torch.Generator) -> Pairs:
    """Random pairs; both figures differ in colour from the ground and in shape from each other."""
    order = torch.rand(count, len(COLOURS), generator=generator).argsort(dim=-1)
    kinds = torch.rand(count, len(SHAPES), generator=generator).argsort(dim=-1)
    halves = []
    for side in (0, 1):
        u = torch.rand(count, 4, generator=generator)
        radius = PAIR_RADIUS[0] + (PAIR_RADIUS[1] - PAIR_RADIUS[0]) * u[:, 0]
        x = SIDE * (0.25 + 0.5 * side) + 1.5 * (2 * u[:, 1] - 1)
        y = SIDE / 2 + 12 * (2 * u[:, 2] - 1)
        turn = math.radians(15) * (2 * u[:, 3] - 1)
        halves.append(Scenes(kinds[:, side], order[:, side], order[:, 2], x, y, radius, turn))
    return Pairs(*halves)


def render_pairs(pairs: Pairs) -> Tensor:
    """Pictures (N, 3, 64, 64) in [0, 1]."""
    pictures = PALETTE[pairs.left.ground][:, :, None, None].expand(-1, -1, SIDE, SIDE)
    for half in (pairs.left, pairs.right):
        figure = PALETTE[half.figure][:, :, None, None]
        pictures = pictures + coverage(half)[:, None] * (figure - pictures)
    return pictures


def caption_pairs(pairs: Pairs) -> list[str]:
    """One caption each."""
    a, b = pairs.left, pairs.right
    rows = zip(a.figure, a.shape, b.figure, b.shape, a.ground, strict=True)
    return [
        f"a {COLOURS[i]} {SHAPES[j]} beside a {COLOURS[k]} {SHAPES[m]} on {COLOURS[g]}"
        for i, j, k, m, g in rows
    ]


def read_pair(picture: Tensor) -> list[tuple[int, int]]:
    """Shape and colour index of the left and the right figure of one picture (3, 64, 64)."""
    ground = torch.cat([picture[:, :2], picture[:, -2:]], dim=1).flatten(1).median(dim=1).values
    found = []
    for side in (0, 1):
        half = slice(side * SIDE // 2, (side + 1) * SIDE // 2)
        distance = (picture - ground[:, None, None]).norm(dim=0)
        distance[:, : half.start] = 0
        distance[:, half.stop :] = 0
        strongest = distance.flatten().topk(40).indices
        figure = picture.flatten(1)[:, strongest].median(dim=1).values
        cover = (distance / (figure - ground).norm().clamp(min=1e-3)).clamp(0, 1)
        colour = int((PALETTE - figure).norm(dim=-1).argmin())
        found.append((int(fit(cover)[0]), colour))
    return found
