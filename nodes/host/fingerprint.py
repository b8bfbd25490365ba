"""What tells one of the user's models from another, without reading gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

_PREFIX = "diffusion_model."
_NUMBERS = 4096  # of each tensor, spread over it


def model_fingerprint(model: Any) -> str:
    """SHA-256 of a few numbers of each cross-attention's keys, and of every patch on the U-Net.

    Patches are those of LoRAs and merges, with their strengths; where they came from is not asked.
    """
    digest = hashlib.sha256()
    for key, (weight, *patches) in sorted(model.get_key_patches(_PREFIX).items()):
        if key.endswith((".attn2.to_k.weight", "input_blocks.0.0.weight")):
            patches = [weight[0], *patches]
        for part in _parts(patches) if patches else ():
            digest.update(f"{key} {part};".encode())
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[str]:
    """What is in nested lists, patches and tensors."""
    if isinstance(value, Tensor):
        yield _sketch(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item)
    elif value is None or isinstance(value, (str, int, float)):
        yield repr(value)
    else:  # an adapter, or a function that converts a weight
        yield type(value).__name__
        yield from _parts(getattr(value, "weights", None))


def _sketch(tensor: Tensor) -> str:
    flat = tensor.detach().float().reshape(-1)
    some = flat[:: max(1, len(flat) // _NUMBERS)].cpu()
    return f"{tuple(tensor.shape)} {hashlib.sha256(some.numpy().tobytes()).hexdigest()}"
