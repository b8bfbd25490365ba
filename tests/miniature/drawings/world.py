"""The world of drawings: one drawing by one artist on a plain ground, 96 x 96 pixels.

Captions name thing and ground. Only the picture shows artist, position, size, turn and mirror.
One (thing, ground) pair in eight is held out of all training; so are two artists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .sources import ARTISTS, load_drawings
from .sources import THINGS as NAMES

SIDE = 96
THINGS = tuple(NAMES)
TRAINED = tuple(i for i, artist in enumerate(ARTISTS) if artist.trained)
HELD_OUT = {artist.name: i for i, artist in enumerate(ARTISTS) if not artist.trained}
COLOURS = ("red", "green", "blue", "yellow", "purple", "aqua", "black", "white")
RGB = (
    (212, 58, 64), (62, 160, 86), (60, 102, 212), (242, 212, 82),
    (156, 82, 194), (94, 206, 212), (28, 28, 34), (244, 244, 242),
)  # fmt: skip
PALETTE = torch.tensor(RGB, dtype=torch.float32) / 255  # (8, 3), in [0, 1]
MIN_SIZE, MAX_SIZE = 0.62, 0.80  # of the picture's side
MAX_TURN = math.radians(10)
MIRRORED = 0.5
VISIBLE, DISTANCE = 0.6, 0.25  # of a drawing, that must be this far from its ground
TEXTURE = SIDE * 3 // 2


@dataclass(frozen=True)
class Scenes:
    """N scenes as tensors of shape (N,) but `colour` (N, 3).

    x, y (right, down) and size are shares of the side; `flip` is -1 where mirrored; `ground` is
    an index of COLOURS, or -1 where `colour` is any other.
    """

    thing: Tensor
    artist: Tensor
    ground: Tensor
    colour: Tensor
    x: Tensor
    y: Tensor
    size: Tensor
    angle: Tensor
    flip: Tensor

    def __len__(self) -> int:
        return len(self.thing)

    def __getitem__(self, index: Tensor | slice) -> Scenes:
        return Scenes(**{name: value[index] for name, value in vars(self).items()})


@cache
def textures() -> Tensor:
    """Premultiplied RGBA of every drawing, (things, artists, 4, TEXTURE, TEXTURE), in [0, 1]."""
    raw = load_drawings().flatten(0, 1).float() / 255
    small = F.interpolate(raw, (TEXTURE, TEXTURE), mode="bilinear", antialias=True)
    return small.unflatten(0, (len(THINGS), len(ARTISTS)))


@cache
def visible() -> Tensor:
    """Share of each drawing's area that differs from each ground, (things, artists, 8)."""
    small = F.interpolate(textures().flatten(0, 1), (48, 48), mode="area")
    cover = small[:, 3]
    colours = small[:, :3] / cover[:, None].clamp(min=1e-3)
    apart = (colours[:, None] - PALETTE[:, :, None, None]).norm(dim=2) > DISTANCE
    solid = (cover > 0.5)[:, None]
    share = (apart & solid).sum((2, 3)) / solid.sum((2, 3)).clamp(min=1)
    return share.unflatten(0, (len(THINGS), len(ARTISTS)))


def is_held_out(thing: Tensor, ground: Tensor) -> Tensor:
    """One (thing, ground) pair in eight: each thing has one such ground."""
    return (5 * thing + ground + 6) % len(COLOURS) == 0


def pairs(part: str) -> Tensor:
    """(M, 2) pairs (thing, ground) of `part`: "train", "test" or "all", thing by thing."""
    thing, ground = torch.meshgrid(
        torch.arange(len(THINGS)), torch.arange(len(COLOURS)), indexing="ij"
    )
    table = torch.stack([thing.flatten(), ground.flatten()], dim=-1)
    held_out = is_held_out(table[:, 0], table[:, 1])
    return table if part == "all" else table[held_out if part == "test" else ~held_out]


@cache
def combinations(part: str, artists: tuple[int, ...] = TRAINED) -> Tensor:
    """(M, 3) visible triples (thing, artist, ground) of the pairs of `part`."""
    table = pairs(part)
    triples = torch.stack(
        [torch.tensor([thing, artist, ground]) for thing, ground in table.tolist()
         for artist in artists]
    )  # fmt: skip
    return triples[visible()[triples[:, 0], triples[:, 1], triples[:, 2]] > VISIBLE]


def place(triples: Tensor, generator: torch.Generator) -> Scenes:
    """Scenes (N) of the given (N, 3) triples with random position, size, turn and mirror."""
    u = torch.rand(len(triples), 5, generator=generator)
    size = MIN_SIZE + (MAX_SIZE - MIN_SIZE) * u[:, 0]
    reach = 0.54 * size + 0.01
    x, y = (reach + (1 - 2 * reach) * u[:, i] for i in (1, 2))
    thing, artist, ground = triples.unbind(-1)
    flip = 1 - 2 * (u[:, 4] < MIRRORED).float()
    angle = MAX_TURN * (2 * u[:, 3] - 1)
    return Scenes(thing, artist, ground, PALETTE[ground], x, y, size, angle, flip)


def sample(
    count: int, part: str, generator: torch.Generator, artists: tuple[int, ...] = TRAINED
) -> Scenes:
    """`count` random scenes of a part of the world, all things equally often."""
    triples = combinations(part, artists)
    often = torch.bincount(triples[:, 0], minlength=len(THINGS)).float()
    rows = torch.multinomial(1 / often[triples[:, 0]], count, True, generator=generator)
    return place(triples[rows], generator)


def recolour(scenes: Scenes, share: float, generator: torch.Generator) -> Scenes:
    """The same scenes, a `share` of them on a random colour that no caption names."""
    other = torch.rand(len(scenes), generator=generator) < share
    colour = torch.rand(len(scenes), 3, generator=generator)
    facts = vars(scenes) | {
        "ground": scenes.ground.masked_fill(other, -1),
        "colour": torch.where(other[:, None], colour, scenes.colour),
    }
    return Scenes(**facts)


def layers(scenes: Scenes) -> Tensor:
    """Premultiplied RGBA (N, 4, SIDE, SIDE) of the drawings in their places, no ground."""
    table, parts = textures(), []
    for first in range(0, len(scenes), 256):
        part = scenes[first : first + 256]
        theta = _affine(part)
        grid = F.affine_grid(theta, (len(part), 4, 2 * SIDE, 2 * SIDE), align_corners=False)
        fine = F.grid_sample(table[part.thing, part.artist], grid, align_corners=False)
        parts.append(F.avg_pool2d(fine, 2))
    return torch.cat(parts)


def _affine(scenes: Scenes) -> Tensor:
    """Maps of the picture's plane onto the drawing's, (N, 2, 3), in grid_sample's units."""
    cosine, sine = scenes.angle.cos() / scenes.size, scenes.angle.sin() / scenes.size
    x, y = 2 * scenes.x - 1, 2 * scenes.y - 1
    across = torch.stack([cosine, sine, -(cosine * x + sine * y)], dim=-1)
    down = torch.stack([-sine, cosine, sine * x - cosine * y], dim=-1)
    return torch.stack([across * scenes.flip[:, None], down], dim=1)


def render(scenes: Scenes) -> Tensor:
    """Pictures (N, 3, SIDE, SIDE) in [0, 1]."""
    drawn = layers(scenes)
    return (drawn[:, :3] + (1 - drawn[:, 3:]) * scenes.colour[:, :, None, None]).clamp(0, 1)


def render_pair(left: Scenes, right: Scenes) -> Tensor:
    """Pictures (N, 3, SIDE, SIDE) of two drawings side by side on the ground of `left`."""
    picture = left.colour[:, :, None, None].expand(-1, -1, SIDE, SIDE)
    for scenes, centre in ((left, 0.27), (right, 0.73)):
        facts = {"x": torch.full_like(scenes.x, centre), "size": scenes.size * 0.6}
        drawn = layers(Scenes(**(vars(scenes) | facts)))
        picture = drawn[:, :3] + (1 - drawn[:, 3:]) * picture
    return picture.clamp(0, 1)


def generator_of(seed: int, step: int = 0) -> torch.Generator:
    """A generator that depends on seed and step only, so a resumed run draws the same data."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
