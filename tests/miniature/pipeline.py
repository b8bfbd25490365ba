"""The miniature of the drawings as a diffusers pipeline: an independent check of the host's path.

The host's sampler "euler" with the scheduler "simple" is diffusers' Euler with trailing steps;
only the length of the starting noise differs, which `start` takes into account.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor

from .drawings import models
from .drawings.world import SIDE


def pipeline(folder: Path = models.WEIGHTS) -> StableDiffusionPipeline:
    """The narrow models as a pipeline that takes `prompt_embeds` (N, 77, 96)."""
    taesd = models.load("taesd", folder)
    taesd.register_to_config(scaling_factor=1 / models.latent_scale(folder))
    pipe = StableDiffusionPipeline(
        vae=taesd,
        unet=models.load("unet", folder),
        scheduler=scheduler(),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scheduler() -> EulerDiscreteScheduler:
    """Euler over the time steps that the host's "simple" scheduler picks."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,  # 1 as in SD 1.5; no effect on trailing
    )


def start(pipe: StableDiffusionPipeline, noise: Tensor, steps: int) -> Tensor:
    """Unit noise (N, 4, 12, 12) at the host's starting length sqrt(1 + sigma^2), not sigma."""
    pipe.scheduler.set_timesteps(steps)
    sigma = float(pipe.scheduler.sigmas[0])
    return noise * math.sqrt(1 + sigma**2) / sigma


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline,
    context: Tensor,
    null: Tensor,
    noise: Tensor,
    steps: int = 20,
    guidance: float = 3.0,
) -> Tensor:
    """Pictures (N, 3, 96, 96) in [0, 1]; context (N, 77, 96), null (1, 77, 96)."""
    return pipe(
        prompt_embeds=context,
        negative_prompt_embeds=null.expand(len(context), -1, -1),
        latents=start(pipe, noise, steps),
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=SIDE,
        width=SIDE,
        output_type="pt",
    ).images
