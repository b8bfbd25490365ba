"""A diffusers U-Net as a `Denoiser`. Objects are taken as they come: diffusers is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .denoiser import Gain


class DiffusersDenoiser:
    """A UNet2DConditionModel with the noise schedule of its scheduler.

    The deltas join as forward hooks on to_k and to_v, which are gone when `predict` returns.
    """

    def __init__(self, unet: Any, scheduler: Any) -> None:
        raise NotImplementedError

    def predict(
        self, noisy: Tensor, times: Tensor, context: Tensor, deltas: Mapping[str, Gain]
    ) -> Tensor:
        """See `Denoiser.predict`."""
        raise NotImplementedError


def checkpoint_name(path: str, layers_per_block: int) -> str:
    """The name in SD 1.x checkpoints of a cross-attention map of a diffusers U-Net.

    `down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k` is
    `input_blocks.2.1.transformer_blocks.0.attn2.to_k` at two layers a block.
    """
    raise NotImplementedError
