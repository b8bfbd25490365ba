"""A quick look at what a prompt gives while it is trained: a few DDIM steps, no guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...projection import Denoiser
from ...projection.diffusion.denoiser import signal

STEPS = 6


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    context: Tensor,
    shape: tuple[int, ...],
    deltas: Mapping[str, Any],
    steps: int = STEPS,
) -> Tensor:
    """Latents (1, 4, h, w), in the model's scale, of a prompt (1, 77, D), from fixed noise.

    shape: (4, h, w). deltas: as for `Denoiser.predict`.
    """
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    latents = noise.to(context.device)
    last = len(denoiser.alphas_cumprod) - 1
    times = torch.linspace(last, 0, steps + 1).round().long().to(context.device)
    for time, following in zip(times[:-1, None], times[1:, None], strict=True):
        kept, added = signal(denoiser.alphas_cumprod, time)
        predicted = denoiser.predict(latents, time, context, deltas)
        if denoiser.prediction == "epsilon":
            clean, noise = (latents - added * predicted) / kept, predicted
        else:
            clean, noise = kept * latents - added * predicted, added * latents + kept * predicted
        kept, added = signal(denoiser.alphas_cumprod, following)
        latents = kept * clean + added * noise
    return clean
