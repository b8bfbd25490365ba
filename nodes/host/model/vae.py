"""The user's VAE: whether it fits the MODEL, and the latents that training compares in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
from torch import Tensor

from ....projection import ImageToPromptError


def check_vae(vae: Any, model: Any) -> None:
    """Raise ImageToPromptError unless the VAE's latents are what the model denoises."""
    wanted = model.model.latent_format.latent_channels
    channels = getattr(vae, "latent_channels", None)
    found = "no VAE" if vae is None else f"one of {channels} latent channels"
    if channels != wanted or getattr(vae, "latent_dim", 2) != 2:
        raise ImageToPromptError(
            f"a VAE of {wanted} latent channels, as the MODEL's",
            found,
            "Connect the VAE of the MODEL's checkpoint (socket vae).",
        )


def latents_of(vae: Any, model: Any, pictures: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Latents (4, h, w) float32 of pictures (1, H, W, 3), as the model takes them and where.

    Sides of the pictures are multiples of 8. Each is encoded alone: sizes may differ.
    """
    found = []
    for picture in pictures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        encoded = model.model.process_latent_in(vae.encode(picture)).float()
        found.append(encoded[0].to(model.load_device))
    return tuple(found)
