"""Training of the tiny autoencoder: reconstruction, with latents kept near unit normal."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from .. import models
from ..world.scenes import SIDE, render, sample
from .common import Run, generator_of

BATCH, STEPS, RATE = 16, 2200, 2e-3
POLISH_ROUNDS, POLISH_RATE = (500, 1500), 8e-4  # then the decoder alone, for these latents
CROP, WHOLE_FROM = 40, 1900  # crops of this side first, whole pictures from this step on
LATENT_NOISE = 0.05  # the decoder must not depend on details that a sampler cannot hit
MOMENT_WEIGHT = 0.02
CLOUD_SHARE = 8  # one picture in eight is a smooth random field, for pictures off the world


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


def clouds(count: int, generator: torch.Generator) -> Tensor:
    """Smooth random colour fields (N, 3, 64, 64) in [0, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)


def train(seed: int, steps: int | None = None) -> AutoencoderTiny:
    """Train to the end and return the autoencoder with the averaged weights."""
    torch.manual_seed(seed)  # the initial weights: diffusers offers no generator for them
    model = models.taesd_model().to(memory_format=torch.channels_last)
    start(model)
    run = Run("taesd", model, steps or STEPS, RATE, seed, decay=1e-4)
    while run.step < run.steps:
        _step(run, model)
    run.adopt_mean()
    return model


def polish(model: AutoencoderTiny, seed: int, turn: int = 0) -> AutoencoderTiny:
    """Train the decoder on whole pictures, for the encoder as it is: one of the rounds."""
    model = model.requires_grad_(True).to(memory_format=torch.channels_last)
    run = Run(
        f"taesd-decoder-{turn}",
        model.decoder,
        POLISH_ROUNDS[turn],
        POLISH_RATE,
        seed + 1 + turn,
        decay=1e-4,
        average=0.99,
    )
    while run.step < run.steps:
        generator = run.generator()
        pictures = draw(generator)
        with torch.no_grad():
            latents = model.encode(pictures).latents
        square, loss = reconstruction(model, latents, pictures, generator)
        run.descend(loss, psnr=10 * math.log10(4 / square))
    run.adopt_mean()
    return model


def draw(generator: torch.Generator) -> Tensor:
    """A batch of training pictures in [-1, 1]."""
    few = BATCH // CLOUD_SHARE
    pictures = render(sample(BATCH - few, "train", generator))
    pictures = torch.cat([pictures, clouds(few, generator)]) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def reconstruction(
    model: AutoencoderTiny, latents: Tensor, pictures: Tensor, generator: torch.Generator
) -> tuple[float, Tensor]:
    """Mean squared error, and the loss, of pictures decoded from latents with a little noise."""
    noise = torch.randn(latents.shape, generator=generator)
    output = model.decode(latents + LATENT_NOISE * noise).sample
    square = F.mse_loss(output, pictures)
    return square.item(), square + 0.1 * F.l1_loss(output, pictures)


def _step(run: Run, model: AutoencoderTiny) -> None:
    generator = run.generator()
    pictures = draw(generator)
    if run.step < WHOLE_FROM:
        top, left = torch.randint(SIDE - CROP + 1, (2,), generator=generator).tolist()
        pictures = pictures[:, :, top : top + CROP, left : left + CROP]
    latents = model.encode(pictures).latents
    square, loss = reconstruction(model, latents, pictures, generator)
    loss = loss + MOMENT_WEIGHT * _moments(latents)
    run.descend(loss, psnr=10 * math.log10(4 / square), std=latents.std().item())


def _moments(latents: Tensor) -> Tensor:
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    return (mean.square() + (std - 1).square()).mean()


@torch.no_grad()
def measure(model: AutoencoderTiny, count: int = 500) -> dict[str, float]:
    """Held-out PSNR in dB over [0, 1] pixels, and the standard deviation of the latents."""
    model.eval()
    pictures = render(sample(count, "test", generator_of(7, 0)))
    latents = model.encode(pictures * 2 - 1).latents
    output = (model.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    errors = (output - pictures).square().mean(dim=(1, 2, 3))
    return {
        "psnr": float(-10 * torch.log10(errors.mean())),
        "median_psnr": float(-10 * torch.log10(errors.median())),
        "latent_std": float(latents.std()),
    }
