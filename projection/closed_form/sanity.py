"""Is this matrix a trained CLIP text projection? (ours)

Stable Diffusion 1.x files do not hold one, and tools fill the gap with an identity, zeros or
whatever was in memory. All of these invert into something that looks like a prompt and is none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from .inverse import Decomposition, nonzero_values

FILE_ADVICE = "Use a full CLIP file: for SD 1.x, openai/clip-vit-large-patch14's model.safetensors."
# Largest singular value of a trained projection: 1.27 for ViT-L/14, 1.20 for RN50x64.
_SCALE = (0.02, 50.0)
_MIN_RANK_SHARE = 1 / 16
# Standard deviations by which the agreement of two unrelated projections is not exceeded:
# 3.0 was the largest of 450 draws; the trained miniature has 6.9 and ViT-L/14 has 11.
_CHANCE = 4.5
_RANDOM = "random numbers (an untrained or uninitialised matrix)"
# Coarser types have lost the small singular values that decide what is kept.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_entries(weight: Tensor, where: str = "the text projection") -> None:
    """Raise ImageToPromptError unless `weight`, (J, D), can be decomposed at all.

    where: how to call it in the message, for instance the file and key it came from.
    """
    _refuse(where, _flaw_of_entries(weight))


def check_trained(svd: Decomposition, visual_projection: Tensor | None = None) -> None:
    """Raise ImageToPromptError unless a decomposed W_t looks trained.

    visual_projection: W_v (J, V), as `torch.nn.Linear.weight`. A small W_t can keep the spectrum
    of the random numbers it was trained from; that it agrees with W_v then tells it from them.
    """
    flaw = _flaw_of_spectrum(svd.values, _aspect(svd))
    if flaw == _RANDOM and visual_projection is not None:
        flaw = None if agreement(svd, visual_projection) > _CHANCE else flaw
    _refuse("the text projection", flaw)


def _refuse(where: str, flaw: str | None) -> None:
    if flaw:
        expected = "a trained CLIP text projection"
        raise ImageToPromptError(expected, f"{flaw} in {where}", FILE_ADVICE, "clip file")


def _flaw_of_entries(weight: Tensor) -> str | None:
    if weight.ndim != 2 or min(weight.shape) < 2:
        return f"a tensor of shape {tuple(weight.shape)}"
    if weight.dtype not in DTYPES:
        return f"{weight.dtype} numbers"
    if not torch.isfinite(weight).all():
        return "infinite or NaN numbers"
    if not weight.any():
        return "only zeros"
    return None


def _flaw_of_spectrum(values: Tensor, aspect: float) -> str | None:
    nonzero = nonzero_values(values)
    if len(nonzero) < max(2, _MIN_RANK_SHARE * len(values)):
        return f"a matrix of rank {len(nonzero)} instead of about {len(values)}"
    if not _SCALE[0] <= float(values[0]) <= _SCALE[1]:
        return f"numbers of the wrong size (largest singular value {float(values[0]):.3g})"
    if float(nonzero.quantile(0.9) / nonzero.quantile(0.5)) < 1.001:
        return "an identity (or rotation) matrix"
    # Random numbers with a mean are those without one plus a matrix of rank 1, which moves
    # one singular value out and leaves the others between the places they had.
    with_mean = random_matrix_distance(nonzero.sort().values[:-1], aspect)
    if min(random_matrix_distance(nonzero, aspect), with_mean) < 0.005 + 3.0 / len(nonzero):
        return _RANDOM
    return None


def _aspect(svd: Decomposition) -> float:
    """Shorter over longer side of the decomposed matrix."""
    sides = (svd.left.shape[0], svd.right.shape[1])
    return min(sides) / max(sides)


def random_matrix_distance(values: Tensor, aspect: float = 1.0) -> float:
    """Kolmogorov-Smirnov distance of singular values (N,) to those of a random matrix.

    aspect: shorter over longer side of the matrix. Independent entries of any distribution of
    mean 0 give the Marchenko-Pastur law, for a square matrix the quarter circle on [0, 2 x rms].
    N values of such a matrix stay within about 3.4/N of it; a real ViT-L/14 is 0.31 away.
    """
    ordered = values.double().sort().values
    law = _random_law(ordered.square() / ordered.square().mean(), aspect)
    steps = torch.arange(1, len(law) + 1, dtype=torch.float64) / len(law)
    return float(torch.maximum((law - steps).abs(), (law - steps + 1 / len(law)).abs()).max())


def _random_law(eigenvalues: Tensor, aspect: float) -> Tensor:
    """Share (N,) of the Marchenko-Pastur law with mean 1 that lies below each eigenvalue (N,).

    With x = 1 + c + 2 sqrt(c) cos t the density is (2/pi) sin^2 t / x dt on 0 < t < pi, whose
    integral has a closed form.
    """
    c, root = aspect, math.sqrt(aspect)
    t = ((eigenvalues - 1 - c) / (2 * root)).clamp(-1, 1).acos()
    bend = torch.atan((1 - root) / (1 + root) * (t / 2).tan())
    above = (1 + c) * t / (4 * c) - t.sin() / (2 * root) - (1 - c) * bend / (2 * c)
    return 1 - 2 / math.pi * above


def agreement(svd: Decomposition, visual_projection: Tensor) -> float:
    """How far W_t and W_v (J, V) write the same joint directions, in standard deviations (ours).

    The rank correlation of the singular values of W_t with the lengths that W_v has along the
    same joint directions. Training pulls both into one space; unrelated matrices give 0 +- 1.
    """
    kept = len(nonzero_values(svd.values))
    visual = visual_projection.detach().to("cpu", torch.float64)
    along = (visual.T @ svd.left[:, :kept]).norm(dim=0)  # (V, J) @ (J, N) -> (N,)
    ranks = torch.stack([svd.values[:kept], along]).argsort(dim=1).argsort(dim=1).double()
    return float(torch.corrcoef(ranks)[0, 1]) * math.sqrt(kept - 1)
