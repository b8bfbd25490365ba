"""Training of the judge of thing and artist, on real drawings and on their reconstructions.

It never sees a held-out pair on its ground, and no picture that the U-Net draws.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import models, oracle
from .models import Judge
from .sources import ARTISTS
from .training import Run, Schedule
from .world import SIDE, TRAINED, Scenes, generator_of, recolour, render, sample

SCHEDULE = Schedule(steps=1500, rate=3e-3)
BATCH, POOL, REFRESH = 48, 2400, 500
OTHER_GROUNDS, RECONSTRUCTED = 0.3, 0.35
LATENT_NOISE, PIXEL_NOISE, SHIFT, BLURRED = 0.25, 0.03, 6, 0.3
SMOOTHING, ARTIST_WEIGHT = 0.05, 0.7
EVERYONE = tuple(range(len(ARTISTS)))


class Reconstruction:
    """Pictures through the autoencoder, with noise on their latents."""

    def __init__(self, weights: Path) -> None:
        self.taesd = models.load("taesd", weights).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(
        self, pictures: Tensor, noise: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """[0, 1] pictures (N, 3, SIDE, SIDE) -> the same, reconstructed."""
        parts = []
        for part in pictures.split(64):
            latents = self.taesd.encode(2 * part - 1).latents
            if generator is not None:
                u = torch.rand(len(part), 1, 1, 1, generator=generator)
                latents = latents + noise * u * torch.randn(latents.shape, generator=generator)
            parts.append((self.taesd.decode(latents).sample / 2 + 0.5).clamp(0, 1))
        return torch.cat(parts)


def train(seed: int, weights: Path) -> Judge:
    """The judge with averaged weights."""
    torch.manual_seed(seed)
    judge, reconstruct = Judge().to(memory_format=torch.channels_last), Reconstruction(weights)
    run, turn = Run("judge", judge, SCHEDULE, seed, weight_decay=0.05, average=0.99), -1
    while not run.done:
        if run.step // REFRESH != turn:
            turn = run.step // REFRESH
            scenes, pictures = draw_pool(seed, turn, reconstruct)
        generator = run.generator()
        pick = torch.randint(POOL, (BATCH,), generator=generator)
        batch = augment(pictures[pick].float() / 255, generator)
        things, artists = judge(batch.contiguous(memory_format=torch.channels_last))
        thing = F.cross_entropy(things, scenes.thing[pick], label_smoothing=SMOOTHING)
        artist = F.cross_entropy(artists, scenes.artist[pick], label_smoothing=SMOOTHING)
        right = (things.argmax(dim=-1) == scenes.thing[pick]).float().mean().item()
        hand = (artists.argmax(dim=-1) == scenes.artist[pick]).float().mean().item()
        run.descend(thing + ARTIST_WEIGHT * artist, thing=right, artist=hand)
    run.adopt_mean()
    return judge


def draw_pool(seed: int, turn: int, reconstruct: Reconstruction) -> tuple[Scenes, Tensor]:
    """Scenes of all artists and their pictures as bytes, the first ones reconstructed."""
    fresh = generator_of(seed + 300, turn)
    scenes = sample(POOL, "train", fresh, EVERYONE)
    scenes = recolour(scenes, OTHER_GROUNDS, fresh)
    pictures, count = render(scenes), int(RECONSTRUCTED * POOL)
    pictures[:count] = reconstruct(pictures[:count], LATENT_NOISE, fresh)
    return scenes, (pictures * 255).round().byte()


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to SHIFT pixels, blur some, add a little noise."""
    down, right = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(pictures, (SHIFT,) * 4, mode="replicate")
    pictures = padded[:, :, down : down + SIDE, right : right + SIDE]
    blurred = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    some = torch.rand(len(pictures), 1, 1, 1, generator=generator) < BLURRED
    noise = torch.randn(pictures.shape, generator=generator)
    return torch.where(some, blurred, pictures) + PIXEL_NOISE * noise


@torch.no_grad()
def measure(judge: Judge, weights: Path, count: int = 400) -> dict[str, float]:
    """Accuracy on real held-out drawings and on their reconstructions; the oracle's beside it."""
    judge.eval()
    reconstruct, facts = Reconstruction(weights), {}
    scenes = sample(count, "test", generator_of(77), TRAINED)
    real = render(scenes)
    for name, pictures in (("real", real), ("reconstructed", reconstruct(real))):
        things, artists = judge(pictures)
        nearest, seen = oracle.nearest_drawing(pictures, scenes.thing), oracle.read(pictures)
        facts |= {
            f"{name}_thing": share(things.argmax(dim=-1) == scenes.thing),
            f"{name}_artist": share(artists[:, list(TRAINED)].argmax(dim=-1) == scenes.artist),
            f"{name}_thing_nearest": share(nearest.thing == scenes.thing),
            f"{name}_artist_nearest": share(nearest.artist == scenes.artist),
            f"{name}_artist_of_thing_nearest": share(nearest.artist_of_thing == scenes.artist),
            f"{name}_ground": share(seen.ground == scenes.ground),
            f"{name}_position_px": float(
                torch.hypot(seen.x - SIDE * scenes.x, seen.y - SIDE * scenes.y).median()
            ),
            f"{name}_size_px": float((seen.size - SIDE * scenes.size).abs().median()),
        }
    for name, index in ((a.name, i) for i, a in enumerate(ARTISTS) if not a.trained):
        others = sample(count // 2, "all", generator_of(77), (index,))
        things, artists = judge(reconstruct(render(others)))
        facts[f"{name}_thing"] = share(things.argmax(dim=-1) == others.thing)
        facts[f"{name}_artist"] = share(artists.argmax(dim=-1) == others.artist)
    return facts


def share(right: Tensor) -> float:
    """Mean of a boolean tensor."""
    return float(right.float().mean())
