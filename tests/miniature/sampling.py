"""Sampling from the narrow models: conditions and noise in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel

from . import models
from .training.train_clip import image_states, text_states
from .world.preprocess import preprocess
from .world.tokenizer import Tokenizer, end_positions

STEPS, GUIDANCE, CHUNK = 12, 3.0, 50


@dataclass(frozen=True)
class Miniature:
    """The narrow models and the standard deviation of the latents."""

    clip: CLIPModel
    unet: UNet2DConditionModel
    taesd: AutoencoderTiny
    latent_std: float

    @classmethod
    def load(cls, folder: Path = models.WEIGHTS) -> Miniature:
        """All narrow parts from `folder`."""
        clip, unet, taesd = (models.load(part, folder) for part in ("clip", "unet", "taesd"))
        unet = unet.to(memory_format=torch.channels_last)
        return cls(clip, unet, taesd, models.latent_scale(folder))

    @torch.no_grad()
    def states(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Text states (N, 77, 96) of captions and the slot (N,) of each one's first end token."""
        ids = Tokenizer()(captions)
        states = torch.cat([text_states(self.clip, part) for part in ids.split(100)])
        return states, end_positions(ids)

    @torch.no_grad()
    def image_embeds(self, pictures: Tensor) -> Tensor:
        """Joint-space embeddings (N, 96), not normalised, of [0, 1] pictures (N, 3, H, W)."""
        parts = [image_states(self.clip, preprocess(part)) for part in pictures.split(CHUNK)]
        return self.clip.visual_projection(torch.cat(parts))

    @torch.no_grad()
    def draw(
        self, context: Tensor, noise: Tensor, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Tensor:
        """Pictures (N, 3, 64, 64) in [0, 1] from conditions (N, 77, 96) and noise (N, 4, 8, 8)."""
        null = self.states([""])[0]
        pictures = []
        for c, n in zip(context.split(CHUNK), noise.split(CHUNK), strict=True):
            latents = denoise(self.unet, c, null, n, steps, guidance)
            output = self.taesd.decode(latents * self.latent_std).sample
            pictures.append((output / 2 + 0.5).clamp(0, 1))
        return torch.cat(pictures)


@torch.no_grad()
def denoise(
    unet: UNet2DConditionModel,
    context: Tensor,
    null: Tensor,
    noise: Tensor,
    steps: int,
    guidance: float,
) -> Tensor:
    """Latents (N, 4, 8, 8) by DPM-Solver++ (2M) with classifier-free guidance."""
    solver = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    solver.set_timesteps(steps)
    both = torch.cat([null.expand(len(context), -1, -1), context])
    latents = noise * solver.init_noise_sigma
    for time in solver.timesteps:
        doubled = torch.cat([latents, latents]).contiguous(memory_format=torch.channels_last)
        without, with_ = unet(doubled, time, both).sample.chunk(2)
        latents = solver.step(without + guidance * (with_ - without), time, latents).prev_sample
    return latents


def noise_of(seed: int, count: int) -> Tensor:
    """Starting noise (N, 4, 8, 8) from a seed."""
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
