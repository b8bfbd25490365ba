"""Sampling from the narrow models: conditions and noise in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel

from . import models
from .tokenizer import Tokenizer, end_positions
from .train_text import text_states
from .train_vision import image_embeds

STEPS, GUIDANCE, CHUNK = 12, 3.0, 50


@dataclass(frozen=True)
class Miniature:
    """The narrow models and the standard deviation of the latents."""

    clip: CLIPModel
    unet: UNet2DConditionModel
    taesd: AutoencoderTiny
    latent_std: float

    @classmethod
    def load(
        cls, folder: Path = models.WEIGHTS, unet: UNet2DConditionModel | None = None
    ) -> Miniature:
        """All narrow parts from `folder`; another U-Net where one is given."""
        unet = unet or models.load("unet", folder)
        return cls(
            models.load("clip", folder), unet.to(memory_format=torch.channels_last),
            models.load("taesd", folder), models.latent_scale(folder),
        )  # fmt: skip

    @torch.no_grad()
    def states(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Text states (N, 77, 96) of captions and the slot (N,) of each one's first end token."""
        ids = Tokenizer()(captions)
        states = torch.cat([text_states(self.clip, part) for part in ids.split(100)])
        return states, end_positions(ids)

    def image_embeds(self, pictures: Tensor) -> Tensor:
        """Joint-space embeddings (N, 96), not normalised, of [0, 1] pictures (N, 3, H, W)."""
        return image_embeds(self.clip, pictures)

    @torch.no_grad()
    def draw(
        self, context: Tensor, noise: Tensor, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Tensor:
        """Pictures (N, 3, 96, 96) in [0, 1]; conditions (N, 77, 96), noise (N, 4, 12, 12)."""
        null = self.states([""])[0]
        pictures = []
        for c, n in zip(context.split(CHUNK), noise.split(CHUNK), strict=True):
            latents = denoise(self.unet, c, null, n, steps, guidance)
            pictures.append(self.decode(latents))
        return torch.cat(pictures)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Unit-variance latents (N, 4, 12, 12) of [0, 1] pictures."""
        parts = [self.taesd.encode(2 * part - 1).latents for part in pictures.split(CHUNK)]
        return torch.cat(parts) / self.latent_std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[0, 1] pictures of unit-variance latents."""
        parts = [self.taesd.decode(part * self.latent_std).sample for part in latents.split(CHUNK)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def denoise(
    unet: UNet2DConditionModel, context: Tensor, null: Tensor, noise: Tensor, steps: int,
    guidance: float,
) -> Tensor:  # fmt: skip
    """Latents (N, 4, 12, 12) by DPM-Solver++ (2M) with classifier-free guidance."""
    solver = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="trailing", final_sigmas_type="zero",
    )  # fmt: skip
    solver.set_timesteps(steps)
    both = torch.cat([null.expand(len(context), -1, -1), context])
    latents = noise * solver.init_noise_sigma
    for time in solver.timesteps:
        doubled = torch.cat([latents, latents]).contiguous(memory_format=torch.channels_last)
        without, with_ = unet(doubled, time, both).sample.chunk(2)
        latents = solver.step(without + guidance * (with_ - without), time, latents).prev_sample
    return latents


def noise_of(seed: int, count: int) -> Tensor:
    """Starting noise (N, 4, 12, 12) from a seed."""
    side = models.LATENT_SIDE
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(seed))


def all_slots(start: Tensor, end: Tensor) -> Tensor:
    """Conditions (N, 77, 96): the start state (96,), then 76 copies of each end state (N, 96)."""
    return torch.cat([start.expand(len(end), 1, -1), end[:, None].expand(-1, 76, -1)], dim=1)
