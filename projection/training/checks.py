"""Whether a training run's inputs fit together, found out before any work."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..adapters.unet_deltas import check_maps
from ..config.training_config import TrainingConfig
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from ..diffusion.denoiser import PREDICTION_TYPES, Denoiser
from ..errors import ImageToPromptError
from ..projector import Projection


def check_run(
    denoiser: Denoiser,
    projection: Projection,
    image_sets: Sequence[TrainingImages],
    null: Tensor,
    config: TrainingConfig,
    prompts: EncodedPrompts | None,
    has_tower: bool,
) -> None:
    """Raise ImageToPromptError unless the configuration can be trained on these.

    image_sets: images to train on, held-out and prior ones. null: (1, 77, D), the empty prompt.
    """
    width = projection.encoder.text_width
    if null.ndim != 3 or null.shape[::2] != (1, width):
        raise ImageToPromptError(
            f"an empty prompt of shape (1, 77, {width})",
            f"{tuple(null.shape)}",
            "Use the text encoder of an SD 1.x model.",
            "text encoder",
        )
    for images in image_sets:
        _check_images(images, projection, config, has_tower)
    _check_denoiser(denoiser, width)
    if config.preservation.preserve_pairs:
        _check_prompts(prompts, width)
    if projection.cross_attention is not None:
        check_maps(projection.cross_attention, denoiser.linear_shapes)


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


def _check_denoiser(denoiser: Denoiser, width: int) -> None:
    widths = sorted({inputs for _, inputs in denoiser.cross_kv_shapes.values()})
    kind = denoiser.prediction_type
    if widths != [width] or kind not in PREDICTION_TYPES:
        raise ImageToPromptError(
            f"an SD 1.x model that takes text states of width {width} and predicts epsilon or v",
            f"cross-attentions of widths {widths}, predicting {kind}",
            "Use the U-Net of an SD 1.x model.",
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
