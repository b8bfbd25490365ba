"""Readings by least squares from captions alone: no pictures, no U-Net, no gradient (ours).

    min over M:  mean |M (t_i - mean t) - (h_i - offset) / scale|^2 + r s |M|^2

    t_i: a caption's joint embedding W_t h / |W_t h|      h_i: a state of that caption
    r: the damping, relative to s, the mean variance of t in a direction

Whatever encoder gave t, h may be a state of any other that encodes the same captions: in SDXL,
CLIP-L's joint embedding predicts the states of both encoders (Gupta et al. 2026, arXiv 2602.17584,
align independently trained CLIPs by one orthogonal map). Every eighth caption is held out and
scores the map that the others gave.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ..errors import ImageToPromptError
from ..tensors import described, is_plain
from .family import Family
from .reading import Reading, half_precision
from .readings import Readings

DAMPING = 0.1
MIN_CAPTIONS = 100
# Below it the readings explain too little of captions' states: encoder or captions are unfit.
MIN_R_SQUARED = 0.3
HELD_OUT = 8  # every so many captions
_DO = "Encode more and broader captions with the text encoders of the model."


def fit_readings(
    family: Family,
    joint: Tensor,
    states: Mapping[str, Tensor],
    damping: float = DAMPING,
    layer: int | None = None,
) -> Readings:
    """The readings of a family, with the captions' mean embedding as centre.

    joint: (N, J), joint embeddings W_t h of N >= 100 captions, of any length. states: (N, D) by
    the family's reading names: states at the first EOS and at a pad after it of each part, as the
    U-Net reads them, and pooled vectors. damping: r > 0. layer: None is the family's own.
    Raises ImageToPromptError for other shapes, numbers that are not finite, captions that are all
    the same, or a reading that explains less than .3 of the held-out captions' states.
    """
    _check(family, joint, states, damping)
    t = normalize(joint.detach().cpu().double(), dim=-1)
    held = torch.arange(len(t)) % HELD_OUT == HELD_OUT - 1
    mean = t[~held].mean(dim=0)
    x = t - mean
    factor = _factor(x[~held], damping)
    readings = {}
    for name in family.reading_names:
        readings[name] = _reading(name, x, states[name].detach().cpu().double(), held, factor)
    return Readings(
        family=family,
        readings=readings,
        centre=mean.float(),
        direction=torch.zeros(len(mean)),
        layer=family.layer if layer is None else layer,
        captions=len(t),
    )


def _factor(x: Tensor, damping: float) -> Tensor:
    """Cholesky factor (J, J) of the damped covariance of centred embeddings x (N, J)."""
    covariance = x.T @ x / len(x)
    size = covariance.diagonal().mean()
    if not size > 1e-12:
        raise ImageToPromptError(
            "captions that differ", "captions that are all the same", _DO, "captions"
        )
    eye = torch.eye(len(covariance), dtype=x.dtype)
    return torch.linalg.cholesky(covariance + damping * size * eye)


def _reading(name: str, x: Tensor, h: Tensor, held: Tensor, factor: Tensor) -> Reading:
    """One reading, fitted to the captions that are not held out and scored on the others.

    x: (N, J), centred joint embeddings. h: (N, D), states. held: (N,).
    """
    offset = h[~held].mean(dim=0)
    deviation = h - offset
    scale = _scale(deviation[~held])
    y = deviation / scale
    moments = x[~held].T @ y[~held] / int((~held).sum())
    matrix = half_precision(torch.cholesky_solve(moments, factor).T)
    # The factor that half precision leaves out, by least squares; `apply` does not need it.
    found = x @ matrix.double().T
    gain = (found[~held] * y[~held]).sum() / found[~held].square().sum()
    error, total = (gain * found - y)[held].square().sum(), y[held].square().sum()
    reading = Reading(
        matrix=matrix,
        offset=offset.float(),
        scale=scale.float(),
        spread=float(y[~held].norm(dim=-1).mean()),
        r_squared=float(1 - error / total),
        cosine=float(cosine_similarity(found[held], y[held], dim=-1).mean()),
    )
    if not reading.r_squared >= MIN_R_SQUARED:
        raise ImageToPromptError(
            f"readings that explain at least {MIN_R_SQUARED} of held-out captions' states (R2)",
            f"{reading.r_squared:.2f} for {name}",
            _DO,
            "captions",
        )
    return reading


def _scale(deviation: Tensor) -> Tensor:
    """Each channel's standard deviation (D,), at least a thousandth of their median."""
    each = deviation.square().mean(dim=0).sqrt()
    varying = each[each > 1e-12]
    if not len(varying):
        raise ImageToPromptError(
            "captions that differ", "captions with all the same states", _DO, "captions"
        )
    # Not of their mean: one channel without LayerNorm may be larger than all others together.
    return each.clamp_min(1e-3 * varying.median())


def _check(family: Family, joint: Tensor, states: Mapping[str, Tensor], damping: float) -> None:
    if not 0 < damping < float("inf"):
        raise ImageToPromptError("a damping > 0", f"{damping}", f"Use {DAMPING}.")
    if set(states) != set(family.reading_names):
        names = ", ".join(family.reading_names)
        raise ImageToPromptError(f"states {names}", ", ".join(states), _DO, "captions")
    widths = {f"{part.key}.{at}": part.width for part in family.parts for at in ("eos", "pad")}
    for name, rows in {"joint": joint, **states}.items():
        fits = is_plain(rows) and rows.ndim == 2 and len(rows) == len(joint) >= MIN_CAPTIONS
        if not fits or rows.shape[1] != widths.get(name, rows.shape[1]):
            expected = f"{name} (N, {widths.get(name, 'J')}) of N >= {MIN_CAPTIONS} captions"
            raise ImageToPromptError(expected, described(rows), _DO, "captions")
        if not torch.isfinite(rows).all():
            got = f"NaN or infinite ones in {name}"
            raise ImageToPromptError("states of finite numbers", got, _DO, "text states")
