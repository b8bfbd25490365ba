"""What a tensor must be before its numbers are asked for."""

from __future__ import annotations

import torch
from torch import Tensor


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers of its own, laid out as usual.

    Not so: whole, complex and quantised numbers; sparse and nested tensors; tensors of the meta
    device, which have a shape and no numbers. Most operations raise unclear errors for these.
    """
    usual = not tensor.is_nested and not tensor.is_meta and tensor.layout == torch.strided
    return usual and tensor.is_floating_point()


def described(tensor: Tensor) -> str:
    """A tensor's kind and shape for a message, without asking for its numbers."""
    kind = "nested " if tensor.is_nested else "meta " if tensor.is_meta else ""
    shape = "" if tensor.is_nested else f" of shape {tuple(tensor.shape)}"
    return f"a {kind}tensor of {tensor.dtype}, {tensor.layout}{shape}"
