"""What tells one training run from another: a hash of all its inputs, and a sketch of some.

The hash is equal for equal bits. Image latents and encoded texts are computed anew before a run
is resumed, and differ by rounding where another number of threads computes them; the sketch
recognises them all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_SAMPLES = 64  # numbers of each tensor, spread over it
_TOLERANCE = 2e-3  # of the norm: above rounding in 16 bit, far below that of another encoder


def digest_of(settings: Mapping[str, Any], tensors: Iterable[Tensor | None]) -> str:
    """SHA-256 of settings as JSON, and of the shapes and bytes of tensors in their order."""
    digest = hashlib.sha256()
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for tensor in tensors:
        # None counts too: its place in the order must not be taken by the next.
        digest.update(b"none" if tensor is None else str(tuple(tensor.shape)).encode())
        if tensor is not None:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sketch_of(tensors: Iterable[Tensor | None]) -> Tensor:
    """Up to 64 numbers of each tensor as the rows of (K, 64) float32, filled up with 0."""
    rows = []
    for tensor in tensors:
        if tensor is not None and tensor.numel():
            flat = tensor.detach().reshape(-1)
            some = flat[:: -(-len(flat) // _SAMPLES)].cpu().float()
            rows.append(torch.nn.functional.pad(some, (0, _SAMPLES - len(some))))
    return torch.stack(rows)


def is_near(sketch: Tensor, other: Tensor) -> bool:
    """Whether two sketches (K, 64) differ by no more than rounding, row by row."""
    if sketch.shape != other.shape or sketch.dtype != other.dtype:
        return False
    distance = (sketch - other).norm(dim=1)
    return bool((distance <= _TOLERANCE * sketch.norm(dim=1)).all())
