"""The images of a training, each encoded once: latents, image embeddings and pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageToPromptError


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """N images, encoded for training.

    latents: N tensors (4, h, w), in the scale the model takes; sizes may differ.
    embeds: (N, J), joint CLIP space, not normalised, from the vision encoder (with the
    projection's deep prompts, if it has some). pixels: (N, 3, S, S), preprocessed for the vision
    encoder, only where deep prompts are trained.
    Raises ImageToPromptError if these do not fit together, or for NaN.
    """

    latents: tuple[Tensor, ...]
    embeds: Tensor
    pixels: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "latents", tuple(self.latents))
        count = len(self.latents)
        pixels = count if self.pixels is None else len(self.pixels)
        flat = all(latent.ndim == 3 for latent in self.latents) and self.embeds.ndim == 2
        if not count or not flat or not count == pixels == len(self.embeds):
            got = f"{count} latents, {len(self.embeds)} embeddings, {pixels} sets of pixels"
            raise ImageToPromptError(
                "as many latents (4, h, w) as image embeddings, at least one",
                got,
                "Give at least one image.",
                "images",
            )
        for tensor in (*self.latents, self.embeds):
            if not torch.isfinite(tensor).all():
                raise ImageToPromptError(
                    "finite latents and image embeddings",
                    "infinite or NaN numbers",
                    "Check the images, the VAE and the CLIP vision model for NaN.",
                )

    def __len__(self) -> int:
        return len(self.latents)

    def detached_copy(self) -> TrainingImages:
        """Copies in float32 that autograd can use, whatever mode the originals were made in."""
        pixels = None if self.pixels is None else self.pixels.detach().float().clone()
        latents = tuple(latent.detach().float().clone() for latent in self.latents)
        return TrainingImages(latents, self.embeds.detach().float().clone(), pixels)
