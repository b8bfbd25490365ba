"""Closed forms from joint space to text states: the paper's, its rivals, its obvious mistakes.

Each is (matrix (D, J), bias (D,)) acting on v of length 1; the caller sets the length of the
result. `W` is the text projection (J, D); `states` (M, D) are end states of captions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from image_to_prompt.projection.closed_form.inverse import PAPER_CUTOFF, decompose, invert

Affine = tuple[Tensor, Tensor]
UNCUT = 1e-5  # of the largest singular value
TEXT_RIDGE = 0.01  # of the mean eigenvalue of the text embeddings' covariance


def linear(W: Tensor, method: str = "pseudo-inverse", cutoff: float = PAPER_CUTOFF) -> Affine:
    """The project's own inverse, without bias."""
    return invert(W, method, cutoff).matrix, torch.zeros(W.shape[1])


def uncut(W: Tensor) -> Affine:
    """The pseudo-inverse with every singular value that is not numerically zero."""
    return linear(W, cutoff=UNCUT * float(decompose(W).values[0]))


def relative_cutoff(W: Tensor) -> Affine:
    """The mistake of reading the paper's 0.3 as relative to the largest singular value."""
    return linear(W, cutoff=PAPER_CUTOFF * float(decompose(W).values[0]))


def null_space(W: Tensor, states: Tensor, cutoff: float = PAPER_CUTOFF) -> Affine:
    """W+ v at the texts' length, plus the part of the mean end state that W+ cannot give back."""
    inverse = invert(W, "pseudo-inverse", cutoff).matrix
    length = (states @ W.T).norm(dim=-1).mean()  # of a caption in joint space
    mean = states.mean(dim=0)
    return length * inverse, mean - inverse @ (W @ mean)


def text_ridge(W: Tensor, states: Tensor, ridge: float = TEXT_RIDGE) -> Affine:
    """Least squares from unit joint embeddings of captions to their end states, with intercept.

    No picture enters. `ridge` is relative to the mean variance of the embeddings per direction.
    """
    x = F.normalize(states @ W.T, dim=-1).double()
    y = states.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ x / len(x)
    damping = ridge * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=x.dtype)
    matrix = torch.linalg.solve(covariance + damping, x.T @ y / len(x)).T  # (D, J)
    return matrix.float(), (y_mean - matrix @ x_mean).float()


def apply(form: Affine, image_embeds: Tensor, norm: float) -> Tensor:
    """Prompt embeddings (N, D) of length `norm` from joint-space embeddings (N, J)."""
    matrix, bias = form
    return norm * F.normalize(F.normalize(image_embeds, dim=-1) @ matrix.T + bias, dim=-1)
