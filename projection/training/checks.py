"""Whether a training run's inputs fit together, found out before any work."""

from __future__ import annotations

from collections.abc import Sequence

from ..adapters.unet_deltas import check_maps
from ..config.training_config import TrainingConfig
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from ..diffusion.denoiser import PREDICTION_TYPES, Denoiser
from ..diffusion.prompt_form import Prompts
from ..errors import ImageToPromptError
from ..projector import Projection


def check_run(
    denoiser: Denoiser,
    projection: Projection,
    image_sets: Sequence[TrainingImages],
    null: Prompts,
    config: TrainingConfig,
    prompts: EncodedPrompts | None,
    has_tower: bool,
) -> None:
    """Raise ImageToPromptError unless the configuration can be trained on these.

    image_sets: images to train on, held-out and prior ones. null: the empty prompt (1, ...).
    """
    width = projection.context_width
    _check_null(null, width, projection)
    for images in image_sets:
        _check_images(images, projection, config, has_tower)
    _check_denoiser(denoiser, width, _family_name(projection))
    if config.preservation.preserve_pairs:
        _check_prompts(prompts, width)
    if projection.cross_attention is not None:
        check_maps(projection.cross_attention, denoiser.linear_shapes)


def _family_name(projection: Projection) -> str:
    return "SD 1.x" if projection.readings is None else projection.readings.family.name


def _check_null(null: Prompts, width: int, projection: Projection) -> None:
    if null.states.ndim != 3 or null.states.shape[::2] != (1, width):
        raise ImageToPromptError(
            f"an empty prompt of shape (1, 77, {width})",
            f"{tuple(null.states.shape)}",
            f"Use the text encoder of an {_family_name(projection)} model.",
            "text encoder",
        )
    wanted = None if projection.readings is None else (1, projection.readings.pooled_width)
    if null.pooled is not None and tuple(null.pooled.shape) != wanted:
        raise ImageToPromptError(
            "no pooled text" if wanted is None else f"pooled text {wanted}",
            f"{tuple(null.pooled.shape)}",
            f"Use the text encoder of an {_family_name(projection)} model.",
            "text encoder",
        )


def _check_images(
    images: TrainingImages, projection: Projection, config: TrainingConfig, has_tower: bool
) -> None:
    width = projection.encoder.joint_width
    if images.embeds.shape[1] != width:
        raise ImageToPromptError(
            f"image embeddings of width {width}",
            f"{images.embeds.shape[1]}",
            "Use image embeddings of the CLIP that the projection belongs to.",
            "vision encoder",
        )
    if config.deep_prompts is not None and (images.pixels is None or not has_tower):
        raise ImageToPromptError(
            "pixels and a vision encoder, to train deep prompts",
            "none",
            "Choose a preset that does not train the image encoder.",
        )


def _check_denoiser(denoiser: Denoiser, width: int, family: str) -> None:
    widths = sorted({inputs for _, inputs in denoiser.cross_kv_shapes.values()})
    kind = denoiser.prediction_type
    if widths != [width] or kind not in PREDICTION_TYPES:
        raise ImageToPromptError(
            f"an {family} model that takes text states of width {width} and predicts epsilon or v",
            f"cross-attentions of widths {widths}, predicting {kind}",
            f"Use the U-Net of an {family} model.",
            "model",
        )


def _check_prompts(prompts: EncodedPrompts | None, width: int) -> None:
    found = None if prompts is None else prompts.states.shape[-1]
    if found != width:
        raise ImageToPromptError(
            f"encoded prompts to preserve, as states of width {width}",
            "none" if found is None else f"states of width {found}",
            "Give the trainer some encoded captions, or a configuration that preserves none.",
        )
