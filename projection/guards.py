"""Is this matrix a trained CLIP text projection? (ours)

Stable Diffusion 1.x files do not hold one, and tools fill the gap with an identity, zeros or
whatever was in memory. All of these invert into something that looks like a prompt and is none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import ImageToPromptError
from .inverse import nonzero_values

FILE_ADVICE = (
    "Load a full CLIP file on LoadProjection: for SD 1.x, openai/clip-vit-large-patch14's "
    "model.safetensors, placed in models/text_encoders or models/clip_vision."
)
# Largest singular value of a trained projection: 1.27 for ViT-L/14, 1.20 for RN50x64.
_SCALE = (0.02, 50.0)
_MIN_RANK_SHARE = 1 / 16


def check_entries(weight: Tensor, where: str = "the text projection") -> None:
    """Raise ImageToPromptError unless `weight`, (J, D), can be decomposed at all.

    where: how to call it in the message, for instance the file and key it came from.
    """
    _refuse(where, _flaw_of_entries(weight))


def check_spectrum(values: Tensor, where: str = "the text projection") -> None:
    """Raise ImageToPromptError unless singular values (N,), descending, look trained."""
    _refuse(where, _flaw_of_spectrum(values))


def _refuse(where: str, flaw: str | None) -> None:
    if flaw:
        expected = "a trained CLIP text projection"
        raise ImageToPromptError(expected, f"{flaw} in {where}", FILE_ADVICE)


def _flaw_of_entries(weight: Tensor) -> str | None:
    if weight.ndim != 2 or min(weight.shape) < 2:
        return f"a tensor of shape {tuple(weight.shape)}"
    if not weight.is_floating_point():
        return f"{weight.dtype} numbers"
    if not torch.isfinite(weight).all():
        return "infinite or NaN numbers"
    if not weight.any():
        return "only zeros"
    return None


def _flaw_of_spectrum(values: Tensor) -> str | None:
    nonzero = nonzero_values(values)
    if len(nonzero) < max(2, _MIN_RANK_SHARE * len(values)):
        return f"a matrix of rank {len(nonzero)} instead of about {len(values)}"
    if not _SCALE[0] <= float(values[0]) <= _SCALE[1]:
        return f"numbers of the wrong size (largest singular value {float(values[0]):.3g})"
    if float(nonzero.quantile(0.9) / nonzero.quantile(0.5)) < 1.001:
        return "an identity (or rotation) matrix"
    if quarter_circle_distance(nonzero) < 0.005 + 3.0 / len(nonzero):
        return "random numbers (an untrained or uninitialised matrix)"
    return None


def quarter_circle_distance(values: Tensor) -> float:
    """Kolmogorov-Smirnov distance of singular values (N,) to those of a random square matrix.

    Independent entries of any distribution give the quarter-circle law on [0, 2 x rms]
    (Marchenko-Pastur for a square). N values of such a matrix stay within about 2.5/N of it
    (0.0046 was the largest of 8 draws for 768); a real ViT-L/14 is 0.31 away.
    """
    ordered = values.double().sort().values
    x = (ordered / ordered.square().mean().sqrt()).clamp(max=2.0)
    law = (x * (4 - x.square()).sqrt() / 2 + 2 * (x / 2).asin()) / math.pi
    steps = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum((law - steps).abs(), (law - steps + 1 / len(x)).abs()).max())
