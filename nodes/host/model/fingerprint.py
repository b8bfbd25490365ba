"""What tells one of the user's models from another, without reading gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .checks import PREFIX
from .patch_settings import patch_settings

# Weights may be mappings of a file, which is read by the page: a few runs touch a few pages.
_RUNS, _NUMBERS = 4, 128  # of each tensor; numbers of each run
_SPREAD = 4096


def model_fingerprint(model: Any) -> str:
    """SHA-256 of some numbers of every tensor of the U-Net, and of every patch on it.

    Patches are those of LoRAs and merges, with their strengths, and run-time patches, with the
    values they were made with. Where all these came from is not asked.
    """
    digest = hashlib.sha256()
    for key, (weight, *patches) in sorted(model.get_key_patches(PREFIX).items()):
        for part in _parts([weight[0], *patches], _sketch):
            digest.update(f"{key} {part};".encode())
    for part in patch_settings(model, _sketch):
        digest.update(f"{part};".encode())
    return digest.hexdigest()


def attention_fingerprint(model: Any) -> str:
    """The fingerprint of version 0.1.0, by which unfinished fits of that version are named.

    It sees the first convolution, each attn2.to_k and every LoRA or merge, but no other weight:
    a file of that name may belong to another model.
    """
    digest = hashlib.sha256()
    for key, (weight, *patches) in sorted(model.get_key_patches(PREFIX).items()):
        if key.endswith((".attn2.to_k.weight", "input_blocks.0.0.weight")):
            patches = [weight[0], *patches]
        for part in _parts(patches, _spread_sketch) if patches else ():
            digest.update(f"{key} {part};".encode())
    return digest.hexdigest()


def _parts(value: Any, sketch: Callable[[Tensor], str]) -> Iterator[str]:
    """What is in nested lists, patches and tensors."""
    if isinstance(value, Tensor):
        yield sketch(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item, sketch)
    elif value is None or isinstance(value, (str, int, float)):
        yield repr(value)
    else:  # an adapter, or a function that converts a weight
        yield type(value).__name__
        yield from _parts(getattr(value, "weights", None), sketch)


def _sketch(tensor: Tensor) -> str:
    """Shape and hash of a tensor's numbers: all of a small one, else of runs from end to end."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter)  # the host's quantised ones are others
    flat = (tensor if plain else tensor.float()).detach().reshape(-1)
    if len(flat) > _RUNS * _NUMBERS:
        step = (len(flat) - _NUMBERS) // (_RUNS - 1)
        starts = [step * n for n in range(_RUNS)]
        flat = torch.cat([flat[start : start + _NUMBERS].float() for start in starts])
    return _hashed(tensor, flat)


def _spread_sketch(tensor: Tensor) -> str:
    flat = tensor.detach().float().reshape(-1)
    return _hashed(tensor, flat[:: max(1, len(flat) // _SPREAD)])


def _hashed(tensor: Tensor, numbers: Tensor) -> str:
    values = numbers.float().cpu().contiguous().numpy()
    return f"{tuple(tensor.shape)} {hashlib.sha256(values.tobytes()).hexdigest()}"
