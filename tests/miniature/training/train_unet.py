"""Training of the latent diffusion U-Net on latents and text states that are computed once.

Half of the captions are given as the paper's prompt gives them: their end state in every slot
after the start. Pictures never enter the condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import models
from ..world.captions import FULL, PARTIAL, write
from ..world.scenes import combinations, place, render
from ..world.tokenizer import Tokenizer, end_positions
from .common import BUILD, Run, generator_of
from .train_clip import text_states

BATCH, STEPS, RATE = 32, 8000, 1e-3
BANK = 30_000
NULL_SHARE, END_SHARE, PARTIAL_SHARE = 0.10, 0.45, 0.12
JITTER_SHARE, JITTER = 0.5, 0.8  # share of end states turned by noise of up to 0.8 their norm
SNR_LIMIT, FLOOR = 5.0, 0.15


def schedule() -> DDPMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )


@dataclass(frozen=True)
class Bank:
    """Latents (M, 4, 8, 8) with their triple's row (M,), and text states of all captions.

    `states` (triples, templates, 77, 96) in half precision, `ends` (triples, templates), `null`
    (77, 96) the empty prompt.
    """

    latents: Tensor
    rows: Tensor
    states: Tensor
    ends: Tensor
    null: Tensor


@torch.no_grad()
def encode_pictures(rows: Tensor, seed: int, weights: Path) -> Tensor:
    """Unit-variance latents (M, 4, 8, 8) of one random picture per row of training triples."""
    taesd, scale = models.load("taesd", weights), models.latent_scale(weights)
    taesd = taesd.to(memory_format=torch.channels_last)
    scenes = place(combinations("train")[rows], generator_of(seed, -1))
    parts = []
    for first in range(0, len(rows), 250):
        pictures = render(scenes[first : first + 250]) * 2 - 1
        parts.append(taesd.encode(pictures).latents / scale)
    return torch.cat(parts).contiguous()


@torch.no_grad()
def encode_captions(weights: Path) -> tuple[Tensor, Tensor, Tensor]:
    """States and end slots of every template for every training triple, and the null states."""
    clip, tokenizer = models.load("clip", weights), Tokenizer()
    states, ends = [], []
    for triple in combinations("train"):
        ids = tokenizer([write(template, triple) for template in (*FULL, *PARTIAL)])
        states.append(text_states(clip, ids).half())
        ends.append(end_positions(ids))
    return torch.stack(states), torch.stack(ends), text_states(clip, tokenizer([""]))[0]


def bank(seed: int, weights: Path, folder: Path = BUILD) -> Bank:
    """The data of a run, computed once and kept beside its checkpoint."""
    path = folder / "unet-latents.safetensors"
    if not path.exists():
        known = len(combinations("train"))
        rows = torch.randint(known, (BANK,), generator=generator_of(seed, -2))
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"rows": rows, "latents": encode_pictures(rows, seed, weights)}, path)
    stored = load_file(path)
    return Bank(stored["latents"], stored["rows"], *encode_captions(weights))


def draw_context(bank: Bank, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Conditions (N, 77, 96): full captions, end states repeated, and null prompts."""
    u = torch.rand(len(rows), 4, generator=generator)
    partial = u[:, 0] < PARTIAL_SHARE
    template = torch.where(
        partial, len(FULL) + (u[:, 1] * len(PARTIAL)).long(), (u[:, 1] * len(FULL)).long()
    )
    context = bank.states[rows, template].float()
    end = context[torch.arange(len(rows)), bank.ends[rows, template]]
    noise = F.normalize(torch.randn(end.shape, generator=generator), dim=-1)
    amount = JITTER * u[:, 3] / JITTER_SHARE * (u[:, 3] < JITTER_SHARE)
    length = end.norm(dim=-1, keepdim=True)
    end = length * F.normalize(end / length + amount[:, None] * noise, dim=-1)
    alone = (u[:, 2] < END_SHARE)[:, None, None]
    context[:, 1:] = torch.where(alone, end[:, None], context[:, 1:])
    null = u[:, 2] > 1 - NULL_SHARE
    context[null] = bank.null
    return context


def timestep_density(noise: DDPMScheduler) -> Tensor:
    """Cumulative distribution of the time steps: min-SNR's weights, used as a density."""
    signal = noise.alphas_cumprod
    weight = (SNR_LIMIT * (1 - signal) / signal).clamp(FLOOR, 1.0)
    return (weight / weight.sum()).cumsum(0)


def train(seed: int, steps: int | None, weights: Path) -> UNet2DConditionModel:
    """Train to the end and return the U-Net with the averaged weights."""
    run = begin(seed, steps)
    data, noise = bank(seed, weights), schedule()
    density = timestep_density(noise)
    while run.step < run.steps:
        _step(run, data, noise, density)
    run.adopt_mean()
    return run.model


def begin(seed: int, steps: int | None = None) -> Run:
    """A fresh run, or the one whose checkpoint is on disk."""
    torch.manual_seed(seed)  # the initial weights: diffusers offers no generator for them
    model = models.unet_model().to(memory_format=torch.channels_last)
    return Run("unet", model, steps or STEPS, RATE, seed)


def _step(run: Run, data: Bank, noise: DDPMScheduler, density: Tensor) -> None:
    generator = run.generator()
    pick = torch.randint(len(data.rows), (BATCH,), generator=generator)
    context = draw_context(data, data.rows[pick], generator)
    draws = torch.rand(BATCH, generator=generator)
    times = torch.searchsorted(density, draws).clamp(max=len(density) - 1)
    latents = data.latents[pick]
    epsilon = torch.randn(latents.shape, generator=generator)
    noisy = noise.add_noise(latents, epsilon, times)
    run.descend(F.mse_loss(run.model(noisy, times, context).sample, epsilon))
