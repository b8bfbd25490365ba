"""The world: one anti-aliased shape on a plain ground, 64 x 64 pixels.

Explicit attributes (captions name them): shape, figure colour, ground colour.
Implicit attributes (only the picture shows them): position, size, rotation.
One combination of the three explicit attributes in eight is held out of all training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 64
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "aqua", "black", "white")
RGB = (
    (220, 30, 40),
    (30, 170, 60),
    (40, 60, 220),
    (240, 220, 40),
    (200, 50, 200),
    (60, 210, 220),
    (20, 20, 20),
    (240, 240, 240),
)
PALETTE = torch.tensor(RGB, dtype=torch.float32) / 255  # (8, 3), in [0, 1]
MIN_RADIUS, MAX_RADIUS = 15.0, 20.0
MAX_TURN = math.radians(15)
REACH = 1.2  # no outline goes further from its centre than this many radii
STAR_WAIST = 0.45  # inner radius of the star over its outer radius


@dataclass(frozen=True)
class Scenes:
    """N scenes as tensors of shape (N,): indices, pixels (x right, y down), radians."""

    shape: Tensor
    figure: Tensor
    ground: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Tensor | slice) -> Scenes:
        return Scenes(**{name: value[index] for name, value in vars(self).items()})


def combinations(part: str) -> Tensor:
    """(M, 3) triples (shape, figure, ground) of `part`: "train" (294), "test" (42) or "all"."""
    s, f, g = torch.meshgrid(
        torch.arange(len(SHAPES)), torch.arange(8), torch.arange(8), indexing="ij"
    )
    triples = torch.stack([s, f, g], dim=-1).reshape(-1, 3)
    triples = triples[triples[:, 1] != triples[:, 2]]
    # A checkerboard over three axes: every pair of attributes is still seen in training.
    held_out = (triples[:, 0] + triples[:, 1] + 5 * triples[:, 2]) % 8 == 0
    if part == "all":
        return triples
    return triples[held_out if part == "test" else ~held_out]


def place(triples: Tensor, generator: torch.Generator) -> Scenes:
    """Scenes (N) of the given (N, 3) triples with random position, size and rotation."""
    u = torch.rand(len(triples), 4, generator=generator)
    radius = MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * u[:, 0]
    margin = REACH * radius + 1
    x, y = (margin + (SIDE - 2 * margin) * u[:, i] for i in (1, 2))
    angle = MAX_TURN * (2 * u[:, 3] - 1)
    return Scenes(triples[:, 0], triples[:, 1], triples[:, 2], x, y, radius, angle)


def sample(count: int, part: str, generator: torch.Generator) -> Scenes:
    """`count` random scenes of a part of the world."""
    triples = combinations(part)
    return place(triples[torch.randint(len(triples), (count,), generator=generator)], generator)


def render(scenes: Scenes) -> Tensor:
    """Pictures (N, 3, 64, 64) in [0, 1]."""
    cover = coverage(scenes)[:, None]
    figure, ground = (PALETTE[c][:, :, None, None] for c in (scenes.figure, scenes.ground))
    return ground + cover * (figure - ground)


def coverage(scenes: Scenes) -> Tensor:
    """Share of each pixel inside the figure, (N, 64, 64)."""
    return (0.5 - signed_distance(scenes)).clamp(0, 1)


def signed_distance(scenes: Scenes) -> Tensor:
    """Distance in pixels to the outline, negative inside, (N, 64, 64); exact near edges."""
    axis = torch.arange(SIDE) + 0.5
    dx = axis[None, None, :] - scenes.x[:, None, None]
    dy = axis[None, :, None] - scenes.y[:, None, None]
    c, s = scenes.angle.cos()[:, None, None], scenes.angle.sin()[:, None, None]
    u, v = c * dx + s * dy, c * dy - s * dx
    out = torch.empty_like(u)
    for index, outline in enumerate(OUTLINES):
        mine = scenes.shape == index
        if mine.any():
            out[mine] = outline(u[mine], v[mine], scenes.radius[mine][:, None, None])
    return out


def _circle(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.95 * r


def _square(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8 * r


def _triangle(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    side = math.sqrt(0.75) * u.abs() - 0.5 * v
    return torch.maximum(side, v) - 0.6 * r


def _cross(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    long, short = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    return torch.maximum(long - r, short - 0.36 * r)


def _star(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    # Fold the plane into one tenth: a wedge of 36 degrees with an outer point on its axis.
    tenth = math.pi / 5
    theta = torch.remainder(torch.atan2(u, -v) + tenth, 2 * tenth) - tenth
    length = torch.hypot(u, v)
    p, q = length * theta.cos(), length * theta.abs().sin()
    outer = REACH * r
    run, rise = STAR_WAIST * math.cos(tenth) - 1, STAR_WAIST * math.sin(tenth)
    return ((p - outer) * rise - q * run) / math.hypot(run, rise)


def _ring(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.8 * r).abs() - 0.22 * r


OUTLINES = (_circle, _square, _triangle, _cross, _star, _ring)  # in the order of SHAPES
