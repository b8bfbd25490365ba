"""A preview of a prompt in training: a few DDIM steps (Song et al. 2021) without guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...projection import Denoiser
from ...projection.diffusion.denoiser import alpha_sigma
from ...projection.diffusion.prompt_form import Prompts

STEPS = 6


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    prompts: Prompts,
    shape: tuple[int, ...],
    deltas: Mapping[str, Any],
    steps: int = STEPS,
) -> Tensor:
    """Latents (1, 4, h, w), in the model's scale, of one prompt, from fixed noise.

    shape: (4, h, w). deltas: as for `Denoiser.predict`.
    """
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    device = prompts.states.device
    latents = noise.to(device)
    last = len(denoiser.alphas_cumprod) - 1
    timesteps = torch.linspace(last, 0, steps + 1).round().long().to(device)
    for time, following in zip(timesteps[:-1, None], timesteps[1:, None], strict=True):
        alpha, sigma = alpha_sigma(denoiser.alphas_cumprod, time)
        predicted = denoiser.predict(latents, time, prompts.states, deltas, **prompts.named())
        if denoiser.prediction_type == "epsilon":
            clean, noise = (latents - sigma * predicted) / alpha, predicted
        else:
            clean, noise = alpha * latents - sigma * predicted, sigma * latents + alpha * predicted
        alpha, sigma = alpha_sigma(denoiser.alphas_cumprod, following)
        latents = alpha * clean + sigma * noise
    return clean
