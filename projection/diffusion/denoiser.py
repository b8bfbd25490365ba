"""How a diffusion model enters the trainer, and the noise arithmetic shared by all of them.

    x_t = alpha_t x_0 + sigma_t n           alpha_t = sqrt(a_t), sigma_t = sqrt(1 - a_t)

a_t: `alphas_cumprod`. epsilon-prediction gives n, v-prediction gives alpha_t n - sigma_t x_0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v")
# The addition to a linear map's output (B, L, O), for its input (B, L, C).
LinearDelta = Callable[[Tensor], Tensor]


class Denoiser(Protocol):
    """A frozen U-Net, whoever holds it. `DiffusersDenoiser` is the one of a diffusers U-Net."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """a_t (T,) of each time step, descending, as the model was trained."""
        ...

    @property
    def prediction_type(self) -> str:
        """One of PREDICTION_TYPES."""
        ...

    @property
    def linear_shapes(self) -> Mapping[str, tuple[int, int]]:
        """(O, C) of every linear map in the transformer blocks, in the model's order.

        By its name in checkpoints, see `unet_deltas`.
        """
        ...

    @property
    def cross_kv_shapes(self) -> Mapping[str, tuple[int, int]]:
        """Those of `linear_shapes` that take the context: attn2's to_k and to_v."""
        ...

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: Tensor,
        deltas: Mapping[str, LinearDelta],
        pooled: Tensor | None = None,
    ) -> Tensor:
        """The model's prediction (B, 4, h, w) with some maps changed, differentiable.

        noisy: (B, 4, h, w) float32, x_t in the latents' own scale (SD 1.x: VAE latents x
        0.18215); timesteps: (B,) int64, 0..T-1; context: (B, 77, D) float32. deltas: by module
        name, the addition to the map's output: LoRADelta or FullDelta, which also have `weight()`
        (O, C). pooled: (B, P) float32, the pooled text that SDXL reads beside the context; models
        without one, such as SD 1.x, are called without the argument. The picture's size, which
        SDXL reads too, is that of `noisy`, uncropped. Gradients are wanted for context and pooled
        and for the tensors in the deltas, never for the model. A name that is not in
        `linear_shapes` is an error (`check_maps` has been called). The model is left as it was,
        whatever happens.
        """
        ...


def alpha_sigma(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t, each (B, 1, 1, 1) float32, of time steps (B,)."""
    # On the CPU, for some devices have no float64.
    power = alphas_cumprod.cpu()[timesteps.cpu()].double()[:, None, None, None]
    alpha_t, sigma_t = (part.sqrt().float().to(timesteps.device) for part in (power, 1 - power))
    return alpha_t, sigma_t


def add_noise(alphas_cumprod: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t (B, 4, h, w) of latents and unit noise of that shape at time steps (B,)."""
    alpha_t, sigma_t = alpha_sigma(alphas_cumprod, timesteps)
    return alpha_t * latents + sigma_t * noise


def target(
    prediction_type: str,
    alphas_cumprod: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
) -> Tensor:
    """The target (B, 4, h, w) of the model's prediction for `add_noise` of the same arguments."""
    if prediction_type == "epsilon":
        return noise
    alpha_t, sigma_t = alpha_sigma(alphas_cumprod, timesteps)
    return alpha_t * noise - sigma_t * latents


def min_snr_weight(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights (T,) float32 of Hang et al. 2023; gamma 0 weighs all time steps alike.

    min(SNR, gamma) / SNR for epsilon-prediction, / (SNR + 1) for v-prediction: the squared error
    of the clean latents, capped where the signal-to-noise ratio is above gamma.
    """
    return _min_snr(prediction_type, alphas_cumprod, gamma).float()


def _min_snr(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    power = alphas_cumprod.detach().cpu().double()
    if not gamma:
        return torch.ones_like(power)
    snr = power / (1 - power).clamp_min(1e-12)
    divisor = snr.clamp_min(1e-12) if prediction_type == "epsilon" else snr + 1
    return snr.clamp(max=gamma) / divisor


def timestep_density(
    prediction_type: str, alphas_cumprod: Tensor, gamma: float, uniform_fraction: float
) -> Tensor:
    """Probability (T,) of each time step: in proportion to Min-SNR, mixed with uniform draws."""
    weights = min_snr_weight(prediction_type, alphas_cumprod, gamma).double()
    even = uniform_fraction / len(weights)
    return ((1 - uniform_fraction) * weights / weights.sum() + even).float()


def loss_weights(
    prediction_type: str, alphas_cumprod: Tensor, gamma: float, density: Tensor
) -> Tensor:
    """Min-SNR weights (T,), scaled to a mean of 1 over draws from the density (T,).

    So scaled, losses of several gammas are of one size, and a constant factor cancels.
    """
    weights = _min_snr(prediction_type, alphas_cumprod, gamma)
    # Over gamma before rounding to float32, as earlier versions did: their runs go on bit for bit.
    weights = (weights / (gamma or 1.0)).float()
    return weights / (weights * density).sum()
