"""The user's CLIP vision model as a `projection.VisionTower`, and its view of pictures.

ComfyUI's own layers add their residuals in place, which autograd refuses, so the layers' parts
are called one by one. Without prompts the numbers are those of the host's `encode_image`, bit
for bit. Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.model_management
import torch
from comfy.ldm.modules.attention import optimized_attention_for_device
from torch import Tensor

from ...projection import DeepPrompts, ImageToPromptError, encode_pictures
from ...projection.regions.patch_mask import key_bias, patch_weights
from .autograd_weights import AutogradModule


class HostTower:
    """See `projection.VisionTower`. Its weights are the host's own, lent for each call.

    device: where image embeddings are wanted. key_bias: (1, N), added to the attention logits of
    every query in every layer, see `regions.patch_mask`; None adds nothing.
    """

    def __init__(
        self, clip_vision: Any, device: torch.device, key_bias: Tensor | None = None
    ) -> None:
        self._patcher, self._device, self._key_bias = clip_vision.patcher, device, key_bias
        self._model = clip_vision.model
        layers = self._model.vision_model.encoder.layers
        self.layers = [_parts(layer) for layer in layers]
        self.heads = layers[0].self_attn.heads
        self.width = self._model.vision_model.embeddings.class_embedding.shape[0]

    def embed(self, pixels: Tensor) -> Tensor:
        """See `VisionTower.embed`. Checks for the host's interrupt, and loads the model."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode():
            comfy.model_management.load_model_gpu(self._patcher)
        vision = self._model.vision_model
        embedded = AutogradModule(vision.embeddings)(pixels.to(self._patcher.load_device))
        return AutogradModule(vision.pre_layrnorm)(embedded)

    def self_attention(self, index: int, normed: Tensor) -> Tensor:
        """See `VisionTower.self_attention`."""
        attention = self._model.vision_model.encoder.layers[index].self_attn
        mask = self._key_bias
        if mask is not None:  # (1, N) -> (N, N): the same keys for every query
            mask = mask.to(normed).expand(normed.shape[1], -1).contiguous()
        kernel = optimized_attention_for_device(
            normed.device, mask=mask is not None, small_input=True
        )
        return AutogradModule(attention)(normed, mask, kernel)

    def mlp(self, index: int, hidden: Tensor) -> Tensor:
        """See `VisionTower.mlp`."""
        layer = self._model.vision_model.encoder.layers[index]
        return AutogradModule(layer.mlp)(AutogradModule(layer.layer_norm2)(hidden))

    def project(self, hidden: Tensor) -> Tensor:
        """See `VisionTower.project`."""
        state = AutogradModule(self._model.vision_model.post_layernorm)(hidden[:, 0, :])
        return AutogradModule(self._model.visual_projection)(state).to(self._device)


def _parts(layer: Any) -> SimpleNamespace:
    attention = layer.self_attn
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return SimpleNamespace(
        layer_norm1=AutogradModule(layer.layer_norm1),
        self_attn=SimpleNamespace(
            **{name: AutogradModule(getattr(attention, name)) for name in names}
        ),
    )


def preprocessed(clip_vision: Any, pictures: Tensor, crop: str) -> Tensor:
    """Pictures (B, H, W, 3) as the vision model reads them: (B, 3, S, S), on its device."""
    return comfy.clip_vision.clip_preprocess(
        pictures.to(clip_vision.load_device),
        size=clip_vision.image_size,
        mean=clip_vision.image_mean,
        std=clip_vision.image_std,
        crop=crop == "center",
    ).float()


def image_embeddings(
    clip_vision: Any,
    pictures: Iterable[Tensor],
    crop: str,
    prompts: DeepPrompts | None = None,
    masks: Iterable[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Image embeddings (1, J) of pictures (1, H, W, 3), joint CLIP space, one after the other.

    One at a time, so that a picture gives the same numbers alone and in any batch. prompts: of a
    fitted projection. masks: (H, W), 0..1, one for each picture; what they leave out is hidden
    from the attention of all layers. Raises ImageToPromptError for prompts of another vision
    model, and for a mask that covers nothing of what the vision model reads.
    """
    for picture, mask in zip(pictures, repeat(None) if masks is None else masks, strict=False):
        comfy.model_management.throw_exception_if_processing_interrupted()
        bias = None if mask is None else _mask_bias(clip_vision, mask, crop)
        if prompts is None and bias is None:
            yield clip_vision.encode_image(picture, crop=crop == "center").image_embeds
        else:
            pixels = preprocessed(clip_vision, picture, crop)
            tower = HostTower(clip_vision, comfy.model_management.intermediate_device(), bias)
            yield encode_pictures(tower, pixels, prompts)


def _mask_bias(clip_vision: Any, mask: Tensor, crop: str) -> Tensor | None:
    """The attention bias (1, N) of a mask (H, W), 0..1; None where it is even."""
    channels = mask[None, :, :, None].expand(-1, -1, -1, 3)
    # As the picture is scaled and cropped, without CLIP's mean and standard deviation.
    scaled = comfy.clip_vision.clip_preprocess(
        channels.to(clip_vision.load_device),
        size=clip_vision.image_size,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        crop=crop == "center",
    )
    patch = clip_vision.model.vision_model.embeddings.patch_embedding.weight.shape[-1]
    bias = key_bias(patch_weights(scaled[:, 0], patch))
    return bias if bool(bias.any()) else None


def check_clip_vision(clip_vision: Any, joint_width: int, encoder_name: str) -> Tensor:
    """The vision model's own visual projection W_v, (J, V).

    Raises ImageToPromptError if there is none, or it does not end in this joint space.
    """
    weight = getattr(
        getattr(getattr(clip_vision, "model", None), "visual_projection", None), "weight", None
    )
    if weight is None or weight.shape[0] != joint_width:
        got = "a vision model without a CLIP projection"
        if weight is not None:
            got = f"a vision model of joint width {weight.shape[0]}{_known_width(weight.shape[0])}"
        raise ImageToPromptError(
            f"the vision encoder of {encoder_name} (joint width {joint_width})",
            got if clip_vision is not None else "no CLIP vision model",
            "Load the one that the projection was made with, for SD 1.x clip-vit-large-patch14, "
            "with Load CLIP Vision (socket clip_vision).",
        )
    return weight


def _known_width(width: int) -> str:
    return {1024: " (ViT-H)", 1280: " (ViT-bigG)", 512: " (ViT-B)"}.get(width, "")
