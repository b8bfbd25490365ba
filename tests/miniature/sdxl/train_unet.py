"""Training of SDXL's narrow U-Net on the latents of the drawings.

Epsilon prediction; timesteps are drawn by min-SNR weights, as for the drawings' U-Net, from whose
weights this one begins (head_start.py).
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

from ..drawings import models as drawings
from ..drawings.sources import BUILD
from ..drawings.train_unet import HELD, encode_pictures, schedule, timestep_density
from ..drawings.training import Run, Schedule
from ..drawings.world import generator_of
from . import head_start, models
from .conditions import Captions, draw_prompts, draw_sizes
from .encoders import Prompts, TextEncoders
from .train_open_clip import RUNS

BATCH, RATE = 16, 6e-4
STEPS = 4600  # SDXL_UNET_STEPS in the environment asks for other steps
# The 1,536 features of the sizes are nearly constant, so that AdamW's step, alike for all of them,
# adds up to a jump that switches this layer off for good.
SLOW = {"add_embedding.linear_1": 0.03}
DECAY_SHARE = 4  # the last one of so many parts of the training has the falling rate


@dataclass(frozen=True)
class Bank:
    """Latents (M, 4, 12, 12) with their pair's row (M,), and all captions."""

    latents: Tensor
    rows: Tensor
    captions: Captions


@dataclass(frozen=True)
class Noise:
    """The noise schedule and the cumulative distribution of its timesteps (1000,)."""

    schedule: DDPMScheduler
    density: Tensor

    @classmethod
    def sdxl(cls) -> Noise:
        """SDXL's, which is Stable Diffusion's."""
        plan = schedule()
        return cls(plan, timestep_density(plan))


def bank(seed: int, weights: Path) -> Bank:
    """The data of a run; the drawings' latents are computed once and kept."""
    path = BUILD / "training" / "unet-latents.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(encode_pictures(seed, drawings.WEIGHTS), path)
    stored = load_file(path)
    captions = Captions.encode(TextEncoders.load(weights))
    return Bank(stored["latents"], stored["rows"], captions)


def steps() -> int:
    """Length of the training; a longer one goes on from before the last one's decay."""
    return int(os.environ.get("SDXL_UNET_STEPS", STEPS))


def begin(seed: int, initial: Path = drawings.WEIGHTS) -> tuple[Run, UNet2DConditionModel]:
    """A fresh run from the drawings' U-Net in `initial`, or the one whose checkpoint is on disk."""
    torch.manual_seed(seed)  # the initial weights: diffusers offers no generator for them
    model = models.unet_model().to(memory_format=torch.channels_last)
    head_start.adopt(model, drawings.load("unet", initial), drawings.load("clip"))
    plan = Schedule(steps=steps(), rate=RATE, decay=steps() // DECAY_SHARE)
    return Run("unet", model, plan, seed, average=0.998, folder=RUNS, slow=SLOW), model


def train(seed: int, weights: Path, initial: Path) -> tuple[UNet2DConditionModel, dict[str, float]]:
    """Train to the end; the U-Net with the averaged weights, and its validation loss."""
    run, model = begin(seed, initial)
    data, noise = bank(seed, weights), Noise.sdxl()
    while not run.done:
        _step(run, model, data, noise)
    run.adopt_mean()
    facts = {"steps": run.step, "seconds": run.seconds}
    return model, facts | {"validation": validation(model, data, noise)}


def snapshot(seed: int) -> tuple[UNet2DConditionModel, int]:
    """The averaged weights of the run as its last checkpoint has them, and its step."""
    run, model = begin(seed)
    run.adopt_mean()
    return model, run.step


def _step(run: Run, model: UNet2DConditionModel, data: Bank, noise: Noise) -> None:
    generator = run.generator()
    pick = torch.randint(len(data.rows) - HELD, (BATCH,), generator=generator)
    prompts = draw_prompts(data.captions, data.rows[pick], generator)
    sizes = draw_sizes(BATCH, generator)
    draws = torch.rand(BATCH, generator=generator)
    times = torch.searchsorted(noise.density, draws).clamp(max=len(noise.density) - 1)
    epsilon = torch.randn(data.latents[pick].shape, generator=generator)
    noisy = noise.schedule.add_noise(data.latents[pick], epsilon, times)
    run.descend(F.mse_loss(predict(model, noisy, times, prompts, sizes), epsilon))


def predict(
    model: UNet2DConditionModel, noisy: Tensor, times: Tensor, prompts: Prompts, sizes: Tensor
) -> Tensor:
    """Epsilon (N, 4, 12, 12) of noisy latents at timesteps (N,) or one for all; sizes (N, 6)."""
    added = {"text_embeds": prompts.pooled, "time_ids": sizes}
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    return model(noisy, times, prompts.context, added_cond_kwargs=added).sample


@torch.no_grad()
def validation(model: UNet2DConditionModel, data: Bank, noise: Noise) -> float:
    """The loss on latents that were not trained on, always with the same noise and timesteps."""
    generator, latents = generator_of(99), data.latents[-HELD:]
    prompts = draw_prompts(data.captions, data.rows[-HELD:], generator)
    sizes = draw_sizes(HELD, generator)
    spread = (torch.arange(HELD) + 0.5) / HELD
    times = torch.searchsorted(noise.density, spread[torch.randperm(HELD, generator=generator)])
    epsilon = torch.randn(latents.shape, generator=generator)
    noisy = noise.schedule.add_noise(latents, epsilon, times)
    return float(F.mse_loss(predict(model, noisy, times, prompts, sizes), epsilon))
