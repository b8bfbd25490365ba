"""The picture of a training: dots for steps, a line for their mean, one for the held-out loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

WIDTH, HEIGHT = 640, 400
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, WIDTH - 20, HEIGHT - 40
_INK, _GRID, _STEP = (40, 40, 40), (225, 225, 225), (170, 195, 230)
_TRAINING, _HELD_OUT = (30, 90, 180), (210, 90, 20)
_MEMORY = 0.9  # of the running mean

Points = Sequence[tuple[float, float]]


def loss_curve(losses: Sequence[float], held_out: Sequence[tuple[int, float]]) -> Tensor:
    """A picture (1, 400, 640, 3) of the training loss by step, and of the held-out loss.

    losses: of every step, from step 1 on. held_out: (step, loss), may be empty, as may losses.
    """
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    steps = [(step, loss) for step, loss in enumerate(losses, 1) if math.isfinite(loss)]
    means = _running_mean(steps)
    low, high = _range([loss for _, loss in [*steps, *held_out]])
    last = max([1, *(step for step, _ in [*steps, *held_out])])

    def place(points: Points) -> list[tuple[float, float]]:
        return [
            (
                _LEFT + (_RIGHT - _LEFT) * step / last,
                _BOTTOM - (_BOTTOM - _TOP) * (loss - low) / (high - low),
            )
            for step, loss in points
        ]

    _axes(draw, low, high, last, bool(steps))
    for x, y in place(steps):
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=_STEP)
    _line(draw, place(means), _TRAINING, "training", 0)
    _line(draw, place(held_out), _HELD_OUT, "held-out", 1)
    pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8)
    return pixels.view(1, HEIGHT, WIDTH, 3).float() / 255


def _running_mean(points: Points) -> list[tuple[float, float]]:
    means, weighted, total = [], 0.0, 0.0
    for step, loss in points:
        weighted = _MEMORY * weighted + loss
        total = _MEMORY * total + 1
        means.append((step, weighted / total))
    return means


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What the vertical axis spans: never nothing."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _axes(draw: ImageDraw.ImageDraw, low: float, high: float, last: int, any_steps: bool) -> None:
    for tick in range(5):
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / 4
        draw.line((_LEFT, y, _RIGHT, y), fill=_GRID)
        draw.text((8, y - 6), f"{low + (high - low) * tick / 4:.4g}", fill=_INK)
    draw.line((_LEFT, _BOTTOM, _RIGHT, _BOTTOM), fill=_INK)
    draw.text((_LEFT, _BOTTOM + 8), "step 0", fill=_INK)
    draw.text((_RIGHT - 30, _BOTTOM + 8), f"{last}", fill=_INK)
    if not any_steps:
        draw.text((_LEFT + 20, _TOP + 20), "no steps were taken", fill=_INK)


def _line(draw: ImageDraw.ImageDraw, places: Points, colour: tuple, name: str, row: int) -> None:
    if not places:
        return
    draw.line([*places, places[-1]], fill=colour, width=2)
    for x, y in places if len(places) < 3 else ():
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    x = _LEFT + 130 * row
    draw.line((x, 20, x + 24, 20), fill=colour, width=2)
    draw.text((x + 30, 14), name, fill=_INK)
