"""How a diffusion model enters the trainer, and the noise arithmetic it shares with all others.

x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n           a_t: `alphas_cumprod`, signal power at t
epsilon-prediction gives n, v-prediction gives sqrt(a_t) n - sqrt(1 - a_t) x_0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v")
# What the output (B, L, O) of a map gains for its context (B, L, C): LowRank and Full are such.
LinearDelta = Callable[[Tensor], Tensor]


class Denoiser(Protocol):
    """A frozen U-Net, whoever holds it. `DiffusersDenoiser` is the one of a diffusers U-Net.

    alphas_cumprod: (T,), signal power of each time step, descending, as the model was trained.
    prediction: "epsilon" or "v". layers: (O, C) of every linear map in the transformer blocks,
    by its name in SD 1.x checkpoints, in the model's order; maps: those of them that read the
    context, attn2's to_k and to_v.
    """

    alphas_cumprod: Tensor
    prediction: str
    maps: Mapping[str, tuple[int, int]]
    layers: Mapping[str, tuple[int, int]]

    def predict(
        self, noisy: Tensor, times: Tensor, context: Tensor, deltas: Mapping[str, LinearDelta]
    ) -> Tensor:
        """The model's prediction (B, 4, h, w) with some maps changed, differentiable.

        noisy: (B, 4, h, w) float32, x_t in the latents' own scale (SD 1.x: VAE latents x
        0.18215); times: (B,) int64, 0..T-1; context: (B, 77, D) float32. deltas: by name, what
        that map's output gains: LowRank or Full, which also have `weight()` (O, C). Gradients
        are wanted for the context and for the tensors in the deltas, never for the model. A name
        that is not in `layers` is an error (`check_maps` has been called). The model is left as it
        was, whatever happens.
        """
        ...


def signal(alphas_cumprod: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), each (B, 1, 1, 1) float32, of time steps (B,)."""
    # On the CPU, for some devices have no float64.
    power = alphas_cumprod.cpu()[times.cpu()].double()[:, None, None, None]
    return tuple(part.sqrt().float().to(times.device) for part in (power, 1 - power))


def add_noise(alphas_cumprod: Tensor, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t (B, 4, h, w) of latents and unit noise of that shape at time steps (B,)."""
    kept, added = signal(alphas_cumprod, times)
    return kept * latents + added * noise


def target(
    prediction: str, alphas_cumprod: Tensor, latents: Tensor, noise: Tensor, times: Tensor
) -> Tensor:
    """What the model should predict (B, 4, h, w) for `add_noise` of the same arguments."""
    if prediction == "epsilon":
        return noise
    kept, added = signal(alphas_cumprod, times)
    return kept * noise - added * latents


def timestep_density(
    prediction: str, alphas_cumprod: Tensor, limit: float, uniform: float
) -> Tensor:
    """How often each time step is drawn (T,), of sum 1: `min_snr_weight`, and a `uniform` share."""
    weights = min_snr_weight(prediction, alphas_cumprod, limit).double()
    return ((1 - uniform) * weights / weights.sum() + uniform / len(weights)).float()


def picture_weight(prediction: str, alphas_cumprod: Tensor, limit: float) -> Tensor:
    """How much the error of each time step counts (T,), before scaling (ours).

    What counts is the error of the clean picture that the prediction amounts to: at high noise,
    where the layout is decided, errors of epsilon are small though the picture is far off. Steps
    whose signal-to-noise ratio lies below 1 / limit count less again, in proportion to it;
    limit 0 weighs all times alike.
    """
    power = alphas_cumprod.detach().cpu().double()
    if not limit:
        return torch.ones_like(power).float()
    ratio = power / (1 - power).clamp_min(1e-12)
    clean = 1 / ratio.clamp_min(1e-12) if prediction == "epsilon" else 1 - power
    return (clean * (limit * ratio).clamp(max=1.0)).float()


def min_snr_weight(prediction: str, alphas_cumprod: Tensor, limit: float) -> Tensor:
    """Min-SNR weights (T,) of Hang et al. 2023; limit: gamma, 0 weighs all times alike."""
    power = alphas_cumprod.detach().cpu().double()
    if not limit:
        return torch.ones_like(power).float()
    ratio = power / (1 - power).clamp_min(1e-12)
    lower = ratio.clamp_min(1e-12) if prediction == "epsilon" else ratio + 1
    return (ratio.clamp(max=limit) / lower).float()
