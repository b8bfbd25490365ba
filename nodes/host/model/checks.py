"""Which MODELs can be trained for, and what the host says about one. Read in 0.3.64 and 0.33.0.

A further model family is one more `ModelFamily`, with the checks of its own sockets beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import torch

from ....projection import ImageToPromptError, Projection
from ....projection.adapters.unet_deltas import cross_kv, is_target

PREFIX = "diffusion_model."
# Marks a MODEL that carries a projection's changes already; see `patches`.
ATTACHMENT = "image_to_prompt"


@dataclass(frozen=True)
class ModelFamily:
    """What the U-Nets of a family have in common.

    latent_channels: of noisy latents, without those of inpainting. vector_width: of the vector
    that the U-Net reads beside the cross-attentions' context, made of the pooled text and the
    picture's size; 0: none. bytes_per_cell: activations that a backward pass keeps for each latent
    cell in 16 bit, with LoRAs on all linear maps; a third is a margin.
    """

    name: str
    latent_channels: int
    vector_width: int
    bytes_per_cell: float

    @property
    def advice(self) -> str:
        """Where to get such a MODEL."""
        return f"Connect the MODEL of an {self.name} checkpoint (socket model)."


# Counted on the full-size U-Nets with a kernel that keeps no attention maps: 0.31e6 for SD 1.5 and
# SD 2.1, 0.63e6 for SDXL.
SD1 = ModelFamily("SD 1.x", latent_channels=4, vector_width=0, bytes_per_cell=0.46e6)
SD2 = ModelFamily("SD 2.x", latent_channels=4, vector_width=0, bytes_per_cell=0.46e6)
SDXL = ModelFamily("SDXL", latent_channels=4, vector_width=2816, bytes_per_cell=0.93e6)
FAMILIES = {family.name: family for family in (SD1, SD2, SDXL)}


def family_for(projection: Projection) -> ModelFamily:
    """The family whose U-Nets the projection's prompts are for.

    Raises ImageToPromptError for one that training does not know, such as the SDXL refiner.
    """
    readings = projection.readings
    name = SD1.name if readings is None else readings.family.name
    if name not in FAMILIES:
        raise ImageToPromptError(
            f"a projection for {', '.join(FAMILIES)}",
            f"one for {name}",
            "Use the projection and the MODEL of a base model (sockets projection, model).",
        )
    return FAMILIES[name]


def check_model(model: Any, text_width: int, family: ModelFamily = SD1) -> None:
    """Raise ImageToPromptError unless `model` is one of the family to train for, LoRAs or none."""
    check_family(model, text_width, family)
    prediction_of(model.get_model_object("model_sampling"), family)
    if model.get_attachment(ATTACHMENT) is not None:
        raise ImageToPromptError(
            "a MODEL without a projection's changes",
            "one from Apply Projection, or from an earlier training",
            "Connect the checkpoint's MODEL: the projection brings its changes (socket model).",
        )


def check_family(model: Any, text_width: int, family: ModelFamily) -> None:
    """Raise ImageToPromptError unless `model` is of the family, for contexts of this width."""
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
    vector = _vector_width(model.model)
    if vector != family.vector_width or unet.in_channels != family.latent_channels:
        raise ImageToPromptError(
            f"a plain {family.name} MODEL of {family.latent_channels} latent channels",
            f"{name} of {unet.in_channels} channels, with {_inputs(vector, family)}",
            family.advice,
        )


def _vector_width(base: Any) -> int:
    """The width of the vector that a U-Net reads beside the context; 0: none, -1: unknown."""
    if getattr(base.diffusion_model, "num_classes", None) is None:
        return 0
    return int(getattr(base, "adm_channels", None) or -1)


def _inputs(vector_width: int, family: ModelFamily) -> str:
    if vector_width > 0 and family.vector_width:
        return f"a vector of {vector_width} beside the context instead of {family.vector_width}"
    return f"{'fewer' if family.vector_width else 'more'} inputs than {family.name} has"


def layers_of(model: Any) -> dict[str, tuple[int, int]]:
    """(O, C) of every linear map in a transformer block, by its name in checkpoints."""
    return {
        name: tuple(weight.shape)
        for name, module in model.model.diffusion_model.named_modules()
        if is_target(name) and (weight := getattr(module, "weight", None)) is not None
    }


def prediction_of(sampling: Any, family: ModelFamily = SD1) -> str:
    """Either "epsilon" or "v", as the host's model_sampling has it. Raises ImageToPromptError.

    Schedules that give the U-Net anything but the number of a time step are refused.
    """
    kinds = {comfy.model_sampling.EPS: "epsilon", comfy.model_sampling.V_PREDICTION: "v"}
    methods = {kind.calculate_denoised: name for kind, name in kinds.items()}
    name = methods.get(type(sampling).calculate_denoised)
    discrete = comfy.model_sampling.ModelSamplingDiscrete.timestep
    if name is None or getattr(type(sampling), "timestep", None) is not discrete:
        raise ImageToPromptError(
            "a MODEL of discrete time steps that predicts noise (epsilon) or v",
            type(sampling).__name__,
            family.advice,
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
