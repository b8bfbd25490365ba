"""Least squares from text alone: the map from joint space to text states, fitted on captions.

    min over M, b:  mean |M t_i + b - h_i|^2 + lambda s |M|^2  t = W_t h / |W_t h|, h: EOS states
    u = M (v / |v| - g) + b         g: mean picture minus mean caption, the modality gap

No gradient and no U-Net: a corpus of captions gives M and b, some pictures of a domain give g.
lambda is relative: s is the mean variance of the captions' embeddings in a direction. Ours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError
from ..projector import Projection

METHOD = "text least squares"
RIDGE_LAMBDA = 1.0  # chosen on the miniature, see tests/miniature/fit_sweep.md
_DO = "Encode more captions with the text encoder of the projection."


def fit_from_text(
    projection: Projection,
    states: Tensor,
    image_embeds: Tensor | None = None,
    text_projection: Tensor | None = None,
    ridge_lambda: float = RIDGE_LAMBDA,
    *,
    damping: float | None = None,
) -> Projection:
    """A projection fitted to captions, and shifted to where the pictures lie.

    states: (M, D), last-layer EOS states of M >= 2 captions. image_embeds: (N, J), joint CLIP
    space, of the domain's pictures; None: no shift. text_projection: W_t (J, D); None: what the
    projection's own inverse knows of it. ridge_lambda: the ridge coefficient lambda > 0; damping:
    its name in earlier versions. The trained parts of `projection` are left out: they belong to
    its old matrix. A centred form takes the fitted M in place of W_t'.
    Raises ImageToPromptError for other widths, too few or equal captions, or a projection whose
    W_t cannot be had back.
    """
    ridge_lambda = ridge_lambda if damping is None else damping
    _check(projection, states, image_embeds, ridge_lambda)
    h = states.detach().cpu().double()
    W = text_projection_of(projection) if text_projection is None else text_projection
    t = normalize(h @ W.detach().cpu().double().T, dim=-1)
    matrix, bias = _least_squares(t, h, ridge_lambda)
    if image_embeds is not None:
        bias = bias - matrix @ mean_gap(image_embeds.detach().cpu(), t)
    centred = projection.centred
    return replace(
        projection,
        centred=None if centred is None else replace(centred, matrix=matrix.float()),
        matrix=matrix.float(),
        bias=bias.float(),
        method=METHOD,
        cutoff=float(ridge_lambda),
        kept=len(projection.singular_values),
        residual=None,
        vision=None,
        cross_attention=None,
    )


def _least_squares(t: Tensor, h: Tensor, ridge_lambda: float) -> tuple[Tensor, Tensor]:
    """M (D, J) and b (D,), float64, with intercept; t (M, J), h (M, D)."""
    t_mean, h_mean = t.mean(dim=0), h.mean(dim=0)
    x, y = t - t_mean, h - h_mean
    covariance = x.T @ x / len(x)
    scale = covariance.diagonal().mean()
    if not scale > 1e-12:
        raise ImageToPromptError(
            "captions that differ", "captions that are all the same", _DO, "text encoder"
        )
    ridge = ridge_lambda * scale * torch.eye(len(covariance), dtype=x.dtype)
    matrix = torch.linalg.solve(covariance + ridge, x.T @ y / len(x)).T
    return matrix, h_mean - matrix @ t_mean


def text_projection_of(projection: Projection) -> Tensor:
    """W_t (J, D) float32, up to the directions that the projection's inverse has cut.

    Raises ImageToPromptError for a matrix from which it cannot be had: only a pseudo-inverse
    or a transpose says enough.
    """
    if projection.method == "transpose":
        return projection.matrix.T.contiguous()
    if projection.method != "pseudo-inverse":
        raise ImageToPromptError(
            "a pseudo-inverse or a transpose",
            f"a projection made by {projection.method}",
            "Use a projection made by method pseudo-inverse or transpose.",
            "inverse",
        )
    # What was cut is zero in the inverse, up to rounding; the smallest kept value is 1 / s_1.
    cut = 0.5 / float(projection.singular_values.max())
    return torch.linalg.pinv(projection.matrix.double(), atol=cut, rtol=0.0).float()


def mean_gap(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Mean of unit image embeddings (N, J) minus mean of unit text embeddings (M, J), float64."""
    pictures, texts = (
        normalize(rows.double(), dim=-1).mean(dim=0) for rows in (image_embeds, text_embeds)
    )
    return pictures - texts


def _check(
    projection: Projection, states: Tensor, image_embeds: Tensor | None, ridge_lambda: float
) -> None:
    encoder = projection.encoder
    width = encoder.text_width
    if states.ndim != 2 or states.shape[1] != width or len(states) < 2:
        expected = f"EOS states (M, {width}) of at least 2 captions"
        raise ImageToPromptError(expected, f"{tuple(states.shape)}", _DO, "text encoder")
    if image_embeds is not None and image_embeds.shape[1:] != (encoder.joint_width,):
        raise ImageToPromptError(
            f"image embeddings (N, {encoder.joint_width})",
            f"{tuple(image_embeds.shape)}",
            "Use image embeddings of the CLIP that the projection belongs to.",
            "vision encoder",
        )
    if not 0 < ridge_lambda < float("inf"):
        raise ImageToPromptError("a ridge_lambda > 0", f"{ridge_lambda}", f"Use {RIDGE_LAMBDA}.")
