"""Reading pictures without anything learnt: ground, position, size, and the nearest drawing.

The ground is the median colour of the border; what differs from it is the drawing. Position and
size come from the drawing's box. Thing and artist can be had from the nearest of all real
drawings: the box is cut out, the ground subtracted, and the correlation with each drawing, treated
the same way, is taken (`nearest_drawing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from .sources import BUILD
from .world import COLOURS, PALETTE, SIDE, THINGS, TRAINED, Scenes, combinations, render

BORDER, DIFFERENT = 2, 0.18  # pixels; distance of colours in [0, 1]^3
TRIM = 0.004  # share of the drawing's pixels left out at each side of its box
CROP = 24  # side of a box that is compared
ANGLES, FLIPS = (-0.12, 0.0, 0.12), (1.0, -1.0)


@dataclass(frozen=True)
class Reading:
    """What is seen in N pictures: ground index, its distance to the palette, box in pixels."""

    ground: Tensor
    distance: Tensor
    x: Tensor
    y: Tensor
    size: Tensor
    box: Tensor  # (N, 4): left, top, right, bottom
    mask: Tensor  # (N, SIDE, SIDE), what differs from the border's colour
    colour: Tensor  # (N, 3)


def read(pictures: Tensor) -> Reading:
    """Read [0, 1] pictures (N, 3, SIDE, SIDE)."""
    colour = border_colour(pictures)
    apart = (colour[:, None] - PALETTE).norm(dim=-1)
    mask = (pictures - colour[:, :, None, None]).norm(dim=1) > DIFFERENT
    left, right = _span(mask.sum(dim=1))
    top, bottom = _span(mask.sum(dim=2))
    size = torch.maximum(right - left, bottom - top)
    return Reading(
        apart.argmin(dim=-1), apart.amin(dim=-1), (left + right) / 2, (top + bottom) / 2, size,
        torch.stack([left, top, right, bottom], dim=-1), mask, colour,
    )  # fmt: skip


def border_colour(pictures: Tensor) -> Tensor:
    """Median colour of the outermost pixels, (N, 3)."""
    frame = torch.ones(pictures.shape[-2:], dtype=torch.bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return pictures[:, :, frame].median(dim=-1).values


def _span(counts: Tensor) -> tuple[Tensor, Tensor]:
    """First and last pixel edge of marginal counts (N, SIDE), without stray pixels."""
    share = counts.cumsum(dim=-1) / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    first = (share <= TRIM).sum(dim=-1).clamp(max=SIDE - 1)
    last = (share < 1 - TRIM).sum(dim=-1) + 1
    return first.float(), torch.maximum(last, first + 1).clamp(max=SIDE).float()


def cut_out(pictures: Tensor, reading: Reading) -> Tensor:
    """Unit vectors (N, 3 * CROP^2): each drawing's square box, minus the ground's colour."""
    centre = torch.stack([reading.x, reading.y], dim=-1) / SIDE * 2 - 1
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = reading.size / SIDE
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, (len(pictures), 3, 2 * CROP, 2 * CROP), align_corners=False)
    plain = pictures - reading.colour[:, :, None, None]
    crops = F.avg_pool2d(F.grid_sample(plain, grid, align_corners=False), 2)
    return F.normalize(crops.flatten(1), dim=-1)


@cache
def drawings_on(ground: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut-out vectors of all real drawings on a ground, turned and mirrored; things, artists.

    Artists are those that are trained on. Computed once and kept beside the drawings.
    """
    path = BUILD / "nearest" / f"{ground}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_cut_out_all(ground), path)
    stored = load_file(path)
    return stored["vectors"].float(), stored["thing"], stored["artist"]


def _cut_out_all(ground: int) -> dict[str, Tensor]:
    triples = combinations("all", TRAINED)
    triples = triples[triples[:, 2] == ground]
    vectors = []
    for angle in ANGLES:
        for flip in FLIPS:
            pictures = render(_centred(triples, angle, flip))
            vectors.append(cut_out(pictures, read(pictures)).half())
    times = len(vectors)
    return {
        "vectors": torch.cat(vectors),
        "thing": triples[:, 0].repeat(times),
        "artist": triples[:, 1].repeat(times),
    }


def _centred(triples: Tensor, angle: float, flip: float) -> Scenes:
    """Scenes of triples in the middle of the picture."""
    thing, artist, ground = triples.unbind(-1)
    half = torch.full((len(triples),), 0.5)
    return Scenes(
        thing, artist, ground, PALETTE[ground], half, half, half + 0.2,
        torch.full_like(half, angle), torch.full_like(half, flip),
    )  # fmt: skip


@dataclass(frozen=True)
class Nearest:
    """The nearest real drawing of N pictures: thing, artist, correlation; and the artist of the
    nearest drawing of the thing that was asked for."""

    thing: Tensor
    artist: Tensor
    correlation: Tensor
    artist_of_thing: Tensor


def nearest_drawing(pictures: Tensor, wanted: Tensor) -> Nearest:
    """Compare [0, 1] pictures (N, 3, SIDE, SIDE) with all drawings of the trained artists.

    wanted (N,): the thing asked for.
    """
    reading = read(pictures)
    vectors = cut_out(pictures, reading)
    scores = torch.full((len(pictures), len(THINGS), len(TRAINED)), -1.0)
    for ground in range(len(COLOURS)):
        mine = (reading.ground == ground).nonzero()[:, 0]
        if not len(mine):
            continue
        known, thing, artist = drawings_on(ground)
        columns = thing * len(TRAINED) + artist
        table = torch.full((len(mine), len(THINGS) * len(TRAINED)), -1.0)
        index = columns.expand(len(mine), -1)
        table.scatter_reduce_(1, index, vectors[mine] @ known.T, "amax")
        scores[mine] = table.unflatten(1, (len(THINGS), len(TRAINED)))
    best = scores.flatten(1).max(dim=-1)
    own = scores[torch.arange(len(wanted)), wanted].argmax(dim=-1)
    return Nearest(best.indices // len(TRAINED), best.indices % len(TRAINED), best.values, own)
