"""What training reads, computed once: latents, embeddings and pixels; and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters.lora import check_maps
from ..diffusion.denoiser import PREDICTIONS, Denoiser
from ..errors import ImageToPromptError
from ..projector import Projection
from ..training.presets import TrainingConfig
from .encoded_prompts import EncodedPrompts


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """What training reads of N pictures; everything is computed once, before.

    latents: N tensors (4, h, w), in the scale the model takes; sizes may differ.
    embeds: (N, J), joint CLIP space, from the vision encoder (with the projection's deep prompts,
    if it has some). pixels: (N, 3, S, S) preprocessed for the vision encoder, only where deep
    prompts are trained. Raises ImageToPromptError if these do not fit together.
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
                    "Check the pictures, the VAE and the CLIP vision model for NaN.",
                )

    def __len__(self) -> int:
        return len(self.latents)

    def owned(self) -> TrainingImages:
        """Copies in float32 that autograd can use, whatever mode the originals were made in."""
        pixels = None if self.pixels is None else self.pixels.detach().float().clone()
        latents = tuple(latent.detach().float().clone() for latent in self.latents)
        return TrainingImages(latents, self.embeds.detach().float().clone(), pixels)


def check_run(
    denoiser: Denoiser,
    projection: Projection,
    pictures: TrainingImages,
    null: Tensor,
    recipe: TrainingConfig,
    others: tuple[TrainingImages | None, ...],
    has_tower: bool,
    texts: EncodedPrompts | None = None,
) -> None:
    """Raise ImageToPromptError unless a recipe can be followed on these."""
    encoder = projection.encoder
    if null.ndim != 3 or null.shape[::2] != (1, encoder.text_width):
        raise ImageToPromptError(
            f"an empty prompt of shape (1, 77, {encoder.text_width})",
            f"{tuple(null.shape)}",
            "Use the text encoder of an SD 1.x model.",
            "text encoder",
        )
    for some in (pictures, *others):
        if some is not None and some.embeds.shape[1] != encoder.joint_width:
            raise ImageToPromptError(
                f"image embeddings of width {encoder.joint_width}",
                f"{some.embeds.shape[1]}",
                "Use image embeddings of the CLIP that the projection belongs to.",
                "vision encoder",
            )
        if some is not None and recipe.vision and (some.pixels is None or not has_tower):
            raise ImageToPromptError(
                "pixels and a vision encoder, to train deep prompts",
                "none",
                "Choose a preset that does not train the image encoder.",
            )
    _check_denoiser(denoiser, encoder.text_width)
    width = encoder.text_width
    if recipe.keep and (texts is None or texts.states.shape[-1] != width):
        got = "none" if texts is None else f"states of width {texts.states.shape[-1]}"
        raise ImageToPromptError(
            f"texts to keep, as states of width {width}",
            got,
            "Give the trainer some encoded captions, or use a recipe that keeps none.",
        )
    if projection.cross_attention is not None:
        check_maps(projection.cross_attention, denoiser.layers)


def _check_denoiser(denoiser: Denoiser, width: int) -> None:
    widths = sorted({inputs for _, inputs in denoiser.maps.values()})
    if widths != [width] or denoiser.prediction not in PREDICTIONS:
        raise ImageToPromptError(
            f"an SD 1.x model that reads text states of width {width} and predicts epsilon or v",
            f"cross-attentions of widths {widths}, predicting {denoiser.prediction}",
            "Use the U-Net of an SD 1.x model.",
            "model",
        )
