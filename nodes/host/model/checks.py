"""Which MODELs can be trained for, and what the host says about one. Read in 0.3.64 and 0.33.0.

A further model family is one more `ModelFamily`, with the checks of its own sockets beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ....projection import ImageToPromptError
from ....projection.adapters.unet_deltas import TARGET_MODULES, cross_kv

PREFIX = "diffusion_model."
# Marks a MODEL that carries a projection's changes already; see `patches`.
ATTACHMENT = "image_to_prompt"


@dataclass(frozen=True)
class ModelFamily:
    """What the U-Nets of a family have in common.

    latent_channels: of noisy latents, without those of inpainting. vector_conditioning: whether
    the U-Net reads a pooled vector beside the cross-attentions' context.
    """

    name: str
    latent_channels: int
    vector_conditioning: bool

    @property
    def advice(self) -> str:
        """Where to get such a MODEL."""
        return f"Connect the MODEL of an {self.name} checkpoint (socket model)."


SD1 = ModelFamily("SD 1.x", latent_channels=4, vector_conditioning=False)


def check_model(model: Any, text_width: int) -> None:
    """Raise ImageToPromptError unless `model` is an SD 1.x model to train for, LoRAs or none."""
    check_sd1(model, text_width)
    prediction_of(model.get_model_object("model_sampling"))
    if model.get_attachment(ATTACHMENT) is not None:
        raise ImageToPromptError(
            "a MODEL without a projection's changes",
            "one from Apply Projection, or from an earlier training",
            "Connect the checkpoint's MODEL: the projection brings its changes (socket model).",
        )


def check_sd1(model: Any, text_width: int) -> None:
    """Raise ImageToPromptError unless `model` is that of SD 1.x, for this text encoder."""
    check_family(model, text_width, SD1)


def check_family(model: Any, text_width: int, family: ModelFamily) -> None:
    """Raise ImageToPromptError unless `model` is of the family, for this text encoder."""
    unet: Any = getattr(getattr(model, "model", None), "diffusion_model", None)
    found = cross_kv(layers_of(model)) if unet is not None else {}
    widths = {shape[1] for shape in found.values()}
    name = type(model.model).__name__ if unet is not None else type(model).__name__
    if widths != {text_width}:
        got = f"one with contexts of {sorted(widths)}" if widths else "one without such"
        raise ImageToPromptError(
            f"a MODEL whose cross-attentions read a text encoder of width {text_width} "
            f"({family.name})",
            f"{got} ({name})",
            family.advice,
        )
    reads_vector = getattr(unet, "num_classes", None) is not None
    if reads_vector != family.vector_conditioning or unet.in_channels != family.latent_channels:
        raise ImageToPromptError(
            f"a plain {family.name} MODEL of {family.latent_channels} latent channels",
            f"{name} of {unet.in_channels} channels, with more inputs than {family.name} has",
            family.advice,
        )


def layers_of(model: Any) -> dict[str, tuple[int, int]]:
    """(O, C) of every linear map in a transformer block, by its name in SD 1.x checkpoints."""
    return {
        name: tuple(weight.shape)
        for name, module in model.model.diffusion_model.named_modules()
        if name.endswith(TARGET_MODULES) and (weight := getattr(module, "weight", None)) is not None
    }


def prediction_of(sampling: Any) -> str:
    """Either "epsilon" or "v", as the host's model_sampling has it. Raises ImageToPromptError."""
    kinds = {comfy.model_sampling.EPS: "epsilon", comfy.model_sampling.V_PREDICTION: "v"}
    methods = {kind.calculate_denoised: name for kind, name in kinds.items()}
    name = methods.get(type(sampling).calculate_denoised)
    if name is None or not isinstance(getattr(sampling, "sigmas", None), Tensor):
        raise ImageToPromptError(
            "a MODEL that predicts noise (epsilon) or v", type(sampling).__name__, SD1.advice
        )
    return name


def without_dynamic_weights(model: Any) -> Any:
    """The model itself or, where the host streams its weights on demand (0.33), a whole one."""
    dynamic = getattr(model, "is_dynamic", None)
    if dynamic is None or not dynamic():
        return model
    if model.cached_patcher_init is None:
        raise ImageToPromptError(
            "a MODEL from one of ComfyUI's own loaders",
            "one that cannot be loaded again",
            "Load the checkpoint with Load Checkpoint (socket model).",
        )
    return model.clone(disable_dynamic=True)


def compute_dtype(base: Any) -> torch.dtype:
    """The type that the host's U-Net computes in."""
    return base.manual_cast_dtype or base.get_dtype()
