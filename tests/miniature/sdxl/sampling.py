"""Sampling from the narrow models: conditions and noise in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor

from ..drawings import models as drawings
from ..drawings.train_vision import image_embeds
from . import models
from .conditions import plain_sizes
from .encoders import Prompts, TextEncoders
from .train_unet import predict

STEPS, GUIDANCE, CHUNK = 12, 3.0, 50


@dataclass(frozen=True)
class Miniature:
    """The narrow models and the standard deviation of the latents."""

    encoders: TextEncoders
    unet: UNet2DConditionModel
    taesd: AutoencoderTiny
    latent_std: float

    @classmethod
    def load(cls, folder: Path = models.WEIGHTS) -> Miniature:
        """All narrow parts; those of the drawings from where they are."""
        unet = models.load("unet", folder).to(memory_format=torch.channels_last)
        taesd, scale = drawings.load("taesd"), drawings.latent_scale()
        return cls(TextEncoders.load(folder), unet, taesd, scale)

    def image_embeds(self, pictures: Tensor) -> Tensor:
        """L's joint embeddings (N, 96), not normalised, of [0, 1] pictures (N, 3, H, W)."""
        return image_embeds(self.encoders.l, pictures)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Unit-variance latents (N, 4, 12, 12) of [0, 1] pictures."""
        return self.taesd.encode(2 * pictures - 1).latents / self.latent_std

    @torch.no_grad()
    def draw(
        self, prompts: Prompts, noise: Tensor, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Tensor:
        """Pictures (N, 3, 96, 96) in [0, 1] of N prompts; noise (N, 4, 12, 12)."""
        negative, pictures = self.encoders.encode([""])[0], []
        for first in range(0, len(prompts), CHUNK):
            part = slice(first, first + CHUNK)
            latents = denoise(self.unet, prompts[part], negative, noise[part], steps, guidance)
            output = self.taesd.decode(latents * self.latent_std).sample
            pictures.append((output / 2 + 0.5).clamp(0, 1))
        return torch.cat(pictures)


@torch.no_grad()
def denoise(
    unet: UNet2DConditionModel, prompts: Prompts, negative: Prompts, noise: Tensor, steps: int,
    guidance: float,
) -> Tensor:  # fmt: skip
    """Latents (N, 4, 12, 12) by DPM-Solver++ (2M) with classifier-free guidance."""
    solver = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="trailing", final_sigmas_type="zero",
    )  # fmt: skip
    solver.set_timesteps(steps)
    both = Prompts.cat([negative.expand(len(prompts)), prompts])
    latents, sizes = noise * solver.init_noise_sigma, plain_sizes(2 * len(prompts))
    for time in solver.timesteps:
        doubled = torch.cat([latents, latents])
        without, with_ = predict(unet, doubled, time, both, sizes).chunk(2)
        latents = solver.step(without + guidance * (with_ - without), time, latents).prev_sample
    return latents
