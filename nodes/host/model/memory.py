"""How many noisy pictures a backward pass holds beside the U-Net. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch

from .checks import ModelFamily, compute_dtype

_SHARE = 0.7  # of the device's memory; the rest is for other programs and fragmentation
# Of the activations, where blocks save their inputs only: those, and the largest block's own.
_CHECKPOINTED = 1 / 6


def activation_bytes(
    base: Any, family: ModelFamily, size: Sequence[int], gradient_checkpointing: bool = False
) -> float:
    """Bytes that a backward pass keeps for one picture of latents of this height and width."""
    wide = 2 if compute_dtype(base) == torch.float32 else 1
    share = _CHECKPOINTED if gradient_checkpointing else 1.0
    return wide * share * family.bytes_per_cell * math.prod(size)


def needs_checkpointing(patcher: Any, family: ModelFamily, size: Sequence[int]) -> bool:
    """Whether the activations of a single picture do not fit beside the model."""
    return activation_bytes(patcher.model, family, size) > _left(patcher)


def max_batch_size(
    patcher: Any, family: ModelFamily, size: Sequence[int], gradient_checkpointing: bool
) -> int:
    """How many pictures of this size (h, w) fit beside the model at once: at least one."""
    each = activation_bytes(patcher.model, family, size, gradient_checkpointing)
    return max(1, int(_left(patcher) / each))


def _left(patcher: Any) -> float:
    # Of the whole memory, not of the free part, so that it is the same at every run.
    total = comfy.model_management.get_total_memory(patcher.load_device)
    return _SHARE * total - patcher.model_size()
