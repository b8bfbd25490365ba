"""Training of the latent diffusion U-Net on latents and text states that are computed once.

Part of the captions are given as the paper's prompt gives them: their EOS state in every slot
after the start, which Stable Diffusion obeys too. Pictures never enter the condition.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import models
from .captions import FULL, TEMPLATES, all_captions
from .sources import BUILD
from .tokenizer import Tokenizer, end_positions
from .train_text import text_states
from .training import Run, Schedule
from .world import combinations, generator_of, pairs, place, render

BATCH, RATE = 16, 1e-3
STEPS = 9000  # DRAWINGS_UNET_STEPS in the environment asks for other steps
DECAY_SHARE = 6  # the last one of so many parts of the training has the falling rate
BANK, HELD = 24_000, 256  # pictures; of these the last are kept for the validation loss
NULL_SHARE, END_SHARE, PARTIAL_SHARE = 0.10, 0.45, 0.10
JITTER_SHARE, JITTER = 0.5, 0.8  # share of EOS states turned by noise of up to 0.8 their length
SNR_GAMMA, FLOOR = 5.0, 0.15


def schedule() -> DDPMScheduler:
    """Stable Diffusion's noise schedule; the model predicts epsilon."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )


def timestep_density(noise: DDPMScheduler) -> Tensor:
    """Cumulative distribution of the timesteps: min-SNR weights of epsilon as a density.

    With SNR = alpha_t^2 / sigma_t^2 the weight is min(gamma / SNR, 1), and at least FLOOR.
    """
    signal = noise.alphas_cumprod
    weight = (SNR_GAMMA * (1 - signal) / signal).clamp(FLOOR, 1.0)
    return (weight / weight.sum()).cumsum(0)


@dataclass(frozen=True)
class Bank:
    """Latents (M, 4, 12, 12) with their pair's row (M,), and text states of all captions.

    `states` (pairs, templates, 77, 96) in half precision, `ends` (pairs, templates), `null`
    (77, 96) the empty prompt.
    """

    latents: Tensor
    rows: Tensor
    states: Tensor
    ends: Tensor
    null: Tensor


@torch.no_grad()
def encode_pictures(seed: int, weights: Path) -> dict[str, Tensor]:
    """Unit-variance latents of random training pictures, all things equally often."""
    taesd, scale = models.load("taesd", weights), models.latent_scale(weights)
    taesd = taesd.to(memory_format=torch.channels_last)
    generator, triples = generator_of(seed, -1), combinations("train")
    often = torch.bincount(triples[:, 0]).float()
    rows = torch.multinomial(1 / often[triples[:, 0]], BANK, True, generator=generator)
    scenes = place(triples[rows], generator)
    parts = []
    for first in range(0, BANK, 100):
        pictures = (render(scenes[first : first + 100]) * 2 - 1).contiguous(
            memory_format=torch.channels_last
        )
        parts.append(taesd.encode(pictures).latents / scale)
    return {"latents": torch.cat(parts).contiguous(), "rows": 8 * scenes.thing + scenes.ground}


@torch.no_grad()
def encode_captions(weights: Path) -> tuple[Tensor, Tensor, Tensor]:
    """States and end slots of every template for every pair, and the null states."""
    clip, tokenizer = models.load("clip", weights), Tokenizer()
    states, ends = [], []
    for pair in pairs("all"):
        ids = tokenizer(all_captions(pair))
        states.append(text_states(clip, ids).half())
        ends.append(end_positions(ids))
    return torch.stack(states), torch.stack(ends), text_states(clip, tokenizer([""]))[0]


def bank(seed: int, weights: Path, folder: Path = BUILD) -> Bank:
    """The data of a run; latents are computed once and kept beside its checkpoint."""
    path = folder / "training" / "unet-latents.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(encode_pictures(seed, weights), path)
    stored = load_file(path)
    return Bank(stored["latents"], stored["rows"], *encode_captions(weights))


def draw_context(bank: Bank, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Conditions (N, 77, 96): captions, EOS states repeated (half of them jittered), and null."""
    u = torch.rand(len(rows), 4, generator=generator)
    full, partial = len(FULL), len(TEMPLATES) - len(FULL)
    template = torch.where(
        u[:, 0] < PARTIAL_SHARE, full + (u[:, 1] * partial).long(), (u[:, 1] * full).long()
    )
    context = bank.states[rows, template].float()
    end = context[torch.arange(len(rows)), bank.ends[rows, template]]
    direction = F.normalize(torch.randn(end.shape, generator=generator), dim=-1)
    amount = JITTER * u[:, 3] / JITTER_SHARE * (u[:, 3] < JITTER_SHARE)
    length = end.norm(dim=-1, keepdim=True)
    end = length * F.normalize(end / length + amount[:, None] * direction, dim=-1)
    alone = (u[:, 2] < END_SHARE)[:, None, None]
    context[:, 1:] = torch.where(alone, end[:, None], context[:, 1:])
    context[u[:, 2] > 1 - NULL_SHARE] = bank.null
    return context


def steps() -> int:
    """Length of the training; a longer one goes on from before the last one's decay."""
    return int(os.environ.get("DRAWINGS_UNET_STEPS", STEPS))


def begin(seed: int, initial: Path | None = None) -> tuple[Run, UNet2DConditionModel]:
    """A fresh run, or the one whose checkpoint is on disk."""
    torch.manual_seed(seed)  # the initial weights: diffusers offers no generator for them
    model = models.unet_model().to(memory_format=torch.channels_last)
    if initial:
        models.adopt(model, initial)
    plan = Schedule(steps=steps(), rate=RATE, decay=steps() // DECAY_SHARE)
    return Run("unet", model, plan, seed, average=0.998), model


def train(
    seed: int, weights: Path, initial: Path | None = None
) -> tuple[UNet2DConditionModel, dict[str, float]]:
    """Train to the end; the U-Net with the averaged weights, and its validation loss."""
    run, model = begin(seed, initial)
    data, noise = bank(seed, weights), schedule()
    density = timestep_density(noise)
    while not run.done:
        _step(run, model, data, noise, density)
    run.adopt_mean()
    facts = {"steps": run.step, "seconds": run.seconds}
    return model, facts | {"validation": validation(model, data, noise, density)}


def snapshot(seed: int) -> tuple[UNet2DConditionModel, int]:
    """The averaged weights of the run as its last checkpoint has them, and its step."""
    run, model = begin(seed)
    run.adopt_mean()
    return model, run.step


def _step(
    run: Run, model: UNet2DConditionModel, data: Bank, noise: DDPMScheduler, density: Tensor
) -> None:
    generator = run.generator()
    pick = torch.randint(len(data.rows) - HELD, (BATCH,), generator=generator)
    context = draw_context(data, data.rows[pick], generator)
    draws = torch.rand(BATCH, generator=generator)
    times = torch.searchsorted(density, draws).clamp(max=len(density) - 1)
    run.descend(loss_of(model, data.latents[pick], times, context, noise, generator))


def loss_of(
    model: UNet2DConditionModel, latents: Tensor, times: Tensor, context: Tensor,
    noise: DDPMScheduler, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Mean squared error of the predicted epsilon."""
    epsilon = torch.randn(latents.shape, generator=generator)
    noisy = noise.add_noise(latents, epsilon, times)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    return F.mse_loss(model(noisy, times, context).sample, epsilon)


@torch.no_grad()
def validation(
    model: UNet2DConditionModel, data: Bank, noise: DDPMScheduler, density: Tensor
) -> float:
    """The loss on latents that were not trained on, always with the same noise and timesteps."""
    generator = generator_of(99)
    rows = data.rows[-HELD:]
    context = draw_context(data, rows, generator)
    spread = (torch.arange(HELD) + 0.5) / HELD
    times = torch.searchsorted(density, spread[torch.randperm(HELD, generator=generator)])
    return float(loss_of(model, data.latents[-HELD:], times, context, noise, generator))
