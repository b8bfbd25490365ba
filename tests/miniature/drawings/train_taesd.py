"""Training of the tiny autoencoder: reconstruction, with latents kept near unit normal."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from . import models
from .training import Run, Schedule
from .world import SIDE, generator_of, recolour, render, sample

BATCH = 16
WHOLE = Schedule(steps=3600, rate=2e-3)
DECODER = Schedule(steps=900, rate=1e-3)
CROP, WHOLE_FROM = 48, 3300  # crops of this side first, whole pictures from this step on
POOL, REFRESH = 960, 120  # pictures rendered at once, steps they serve
LATENT_NOISE = 0.05  # the decoder must not depend on details that a sampler cannot hit
MOMENT_WEIGHT, L1_WEIGHT = 0.02, 0.1
OTHER_GROUNDS = 0.2


@torch.no_grad()
def start(model: AutoencoderTiny) -> None:
    """Begin as the identity: plain convolutions copy channels, residual branches add nothing."""
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):
            nn.init.zeros_(module.conv[-1].weight)
    for half in (model.encoder, model.decoder):
        for layer in half.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight)


class Pool:
    """Rendered training pictures, drawn anew every REFRESH steps of the run."""

    def __init__(self, seed: int) -> None:
        self.seed, self.turn, self.pictures = seed, -1, torch.empty(0)

    def draw(self, step: int, generator: torch.Generator) -> Tensor:
        """A batch (BATCH, 3, SIDE, SIDE) in [-1, 1], channels last; one is a smooth field."""
        if step // REFRESH != self.turn:
            self.turn = step // REFRESH
            fresh = generator_of(self.seed + 100, self.turn)
            scenes = recolour(sample(POOL, "train", fresh), OTHER_GROUNDS, fresh)
            self.pictures = (render(scenes) * 255).round().byte()
        pick = torch.randint(POOL, (BATCH - 1,), generator=generator)
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        field = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
        batch = torch.cat([self.pictures[pick].float() / 255, field]) * 2 - 1
        return batch.contiguous(memory_format=torch.channels_last)


def train(seed: int, initial: Path | None = None) -> AutoencoderTiny:
    """Both halves together, then the decoder alone for the encoder as it is."""
    torch.manual_seed(seed)  # the initial weights: diffusers offers no generator for them
    model = models.taesd_model().to(memory_format=torch.channels_last)
    start(model)
    if initial:
        models.adopt(model, initial)
    run, pool = Run("taesd", model, WHOLE, seed, weight_decay=1e-4), Pool(seed)
    while not run.done:
        _step(run, model, pool)
    run.adopt_mean()
    run = Run("taesd-decoder", model.decoder, DECODER, seed + 1, weight_decay=1e-4, average=0.998)
    while not run.done:
        generator = run.generator()
        pictures = pool.draw(run.step + WHOLE.steps, generator)
        with torch.no_grad():
            latents = model.encode(pictures).latents
        square, loss = reconstruction(model, latents, pictures, generator)
        run.descend(loss, psnr=10 * math.log10(4 / square))
    run.adopt_mean()
    return model


def _step(run: Run, model: AutoencoderTiny, pool: Pool) -> None:
    generator = run.generator()
    pictures = pool.draw(run.step, generator)
    if run.step < WHOLE_FROM:
        top, left = torch.randint(SIDE - CROP + 1, (2,), generator=generator).tolist()
        pictures = pictures[:, :, top : top + CROP, left : left + CROP]
    latents = model.encode(pictures).latents
    square, loss = reconstruction(model, latents, pictures, generator)
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    moments = (mean.square() + (std - 1).square()).mean()
    run.descend(loss + MOMENT_WEIGHT * moments, psnr=10 * math.log10(4 / square))


def reconstruction(
    model: AutoencoderTiny, latents: Tensor, pictures: Tensor, generator: torch.Generator
) -> tuple[float, Tensor]:
    """Mean squared error, and the loss, of pictures decoded from latents with a little noise."""
    noise = torch.randn(latents.shape, generator=generator)
    output = model.decode(latents + LATENT_NOISE * noise).sample
    square = F.mse_loss(output, pictures)
    return square.item(), square + L1_WEIGHT * F.l1_loss(output, pictures)


@torch.no_grad()
def measure(model: AutoencoderTiny, count: int = 300) -> dict[str, float]:
    """PSNR in dB over [0, 1] pixels of held-out pairs, and the latents' standard deviation."""
    model.eval()
    pictures = render(sample(count, "test", generator_of(7)))
    parts = [model.encode(part * 2 - 1).latents for part in pictures.split(50)]
    output = torch.cat([(model.decode(part).sample / 2 + 0.5).clamp(0, 1) for part in parts])
    errors = (output - pictures).square().mean(dim=(1, 2, 3))
    return {
        "psnr": float(-10 * torch.log10(errors.mean())),
        "median_psnr": float(-10 * torch.log10(errors.median())),
        "latent_std": float(torch.cat(parts).std()),
    }
