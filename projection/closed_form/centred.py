"""The centred closed form: prompt embeddings with the mean and the spread of EOS states (ours).

    e_0 = norm unit(W_t^+ v)                                    SD-IPC, see `projector`
    e_1 = k o + s unit(P M (I - a c c') v)                      the centred form
    P   = I - o o' / |o|^2,   s^2 = d^2 + (1 - k^2) |o|^2       |e_1|^2 = |o|^2 + d^2
    e_g = ((1 - g) |e_0| + g |e_1|) unit((1 - g) unit(e_0) + g unit(e_1))

    v: image_embeds (J,)      c: unit direction of the mean picture      M: W_t' (D, J)
    o: mean EOS state of captions (D,)      d: mean distance of EOS states from o      g: the gap

In a real CLIP pictures and texts lie apart (the modality gap): a picture has cosine .20 to its
caption, and e_0 has cosine .05 to EOS states, which have .46 among themselves (ViT-L/14, 48
photos, 150 classes). Moving means between the modalities closes the gap (Liang et al. 2022); that
the mean picture is removed by a projection, that the deviation stays orthogonal to o as it does
for states of one length, and the shares a and k are ours, chosen on these data: see
tests/geometry. EOS states of ViT-L/14 are 28.3 long on average; the paper's norm is 27.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError
from .caption_statistics import CaptionStatistics
from .inverse import decompose

# W_v's first left singular direction has cosine .85 to the mean picture: all of it is 72 % of that.
VISUAL_SHARE = 1.0
# All of the mean of 16 pictures would remove content as well: class top-1 .73 at 1, .78 at .7.
PICTURES_SHARE = 0.7
# Pictures without c still have a mean of their own on top of o; .9 matches the cosines of EOS
# states to each other best (least squares over the cosines to other classes and among results).
OFFSET_SHARE = 0.9
# Fewer pictures have too much content of their own in their mean: of 4, top-1 varies by .07.
MIN_PICTURES = 8
_DAMAGED = "Make the projection anew from its CLIP file."


@dataclass(frozen=True, eq=False)
class Centred:
    """The centred form of one encoder, with the gap it is used at. Immutable.

    matrix: M (D, J), joint CLIP space -> last-layer text state; W_t' unless fitted.
    offset: o (D,), last-layer text state. direction: c (J,), joint CLIP space, of length 1; its
    sign does not matter. spread: d > 0. removed: a, 0..1. offset_share: k, 0..1. gap: g, 0..1;
    0 is SD-IPC. Tensors are float32. Raises ImageToPromptError if the parts do not fit together.
    """

    matrix: Tensor
    offset: Tensor
    direction: Tensor
    spread: float
    removed: float = VISUAL_SHARE
    offset_share: float = OFFSET_SHARE
    gap: float = 1.0

    def __post_init__(self) -> None:
        _check_tensors(self.matrix, self.offset, self.direction)
        shares = {name: getattr(self, name) for name in ("removed", "offset_share", "gap")}
        fit = all(0 <= share <= 1 for share in shares.values())  # false for NaN too
        if not (fit and 0 < self.spread < math.inf):
            raise ImageToPromptError(
                "shares from 0 to 1 and a finite spread > 0",
                f"spread {self.spread}, {shares}",
                _DAMAGED,
                "projection file",
            )

    @classmethod
    def of(
        cls,
        text_projection: Tensor,
        statistics: CaptionStatistics,
        direction: Tensor,
        removed: float,
        gap: float = 1.0,
    ) -> Centred:
        """The centred form with M = W_t'.

        text_projection: W_t (J, D), as `torch.nn.Linear.weight`. statistics: of captions' EOS
        states of the same text encoder. direction: (J,) of any length, from `visual_direction`
        with removed `VISUAL_SHARE`, or from `picture_direction` with removed `PICTURES_SHARE`.
        """
        return cls(
            matrix=text_projection.detach().cpu().float().T.contiguous(),
            offset=statistics.offset.float(),
            direction=normalize(direction.detach().cpu().double(), dim=0).float(),
            spread=statistics.spread,
            removed=float(removed),
            gap=float(gap),
        )

    @property
    def length(self) -> float:
        """|e_1|, the same for every picture: sqrt(|o|^2 + d^2)."""
        return math.hypot(float(self.offset.double().norm()), self.spread)

    @property
    def common(self) -> Tensor:
        """g k o (D,): what all prompt embeddings at this gap share; zero at gap 0."""
        return self.gap * self.offset_share * self.offset

    def copy(self) -> Centred:
        """The same form with tensors of its own."""
        return replace(self, **{name: getattr(self, name).detach().clone() for name in TENSORS})

    def states(self, image_embeds: Tensor) -> Tensor:
        """e_1 (B, D) float32, whatever the gap, from image embeddings (B, J) of any length.

        Raises ImageToPromptError for an embedding of which nothing is left beside c.
        """
        matrix, offset, c = (getattr(self, name).to(image_embeds.device) for name in TENSORS)
        v = normalize(image_embeds.float(), dim=-1)
        u = (v - self.removed * (v @ c)[:, None] * c) @ matrix.T  # (B, J) @ (J, D) -> (B, D)
        o = normalize(offset, dim=0)
        u = u - (u @ o)[:, None] * o
        if not (u.norm(dim=-1) > 0).all():
            raise ImageToPromptError(
                "an image that differs from the mean picture",
                "an image embedding with nothing beside it",
                "Use another picture.",
                "image",
            )
        offset_length = float(self.offset.double().norm())
        s = math.sqrt(self.spread**2 + (1 - self.offset_share**2) * offset_length**2)
        return self.offset_share * offset + s * normalize(u, dim=-1)

    def blend(self, u: Tensor, norm: float, image_embeds: Tensor) -> tuple[Tensor, float]:
        """Directions (B, D) of e_g, of any length, and the length |e_g|; for a gap > 0.

        u: (B, D), directions of e_0, of any length > 0; norm: |e_0|. image_embeds: (B, J).
        """
        full = self.states(image_embeds)
        length = (1 - self.gap) * norm + self.gap * self.length
        if self.gap == 1:
            return full, length
        return torch.lerp(normalize(u, dim=-1), normalize(full, dim=-1), self.gap), length


def visual_direction(visual_projection: Tensor) -> Tensor:
    """First left singular direction (J,) float64 of W_v (J, V), of length 1; its sign is free."""
    return decompose(visual_projection.detach().cpu()).left[:, 0]


def picture_direction(image_embeds: Tensor) -> Tensor:
    """Direction (J,) float64 of the mean of unit image embeddings (N, J), of length 1.

    Raises ImageToPromptError for fewer than `MIN_PICTURES`, or pictures without a mean.
    """
    if image_embeds.ndim != 2 or len(image_embeds) < MIN_PICTURES:
        raise ImageToPromptError(
            f"image embeddings (N, J) of at least {MIN_PICTURES} pictures",
            f"{tuple(image_embeds.shape)}",
            "Give more pictures, or use visual_direction.",
            "mean picture",
        )
    mean = normalize(image_embeds.detach().cpu().double(), dim=-1).mean(dim=0)
    length = float(mean.norm())
    if not 1e-3 < length < math.inf:
        raise ImageToPromptError(
            "pictures with a mean", f"a mean of length {length:.3g}", "Use other pictures.", "image"
        )
    return mean / length


def _check_tensors(matrix: Tensor, offset: Tensor, direction: Tensor) -> None:
    shapes = [tuple(t.shape) for t in (matrix, offset, direction)]
    if matrix.ndim != 2 or shapes[1:] != [shapes[0][:1], shapes[0][1:]]:
        raise ImageToPromptError(
            "a centred form of shapes (D, J), (D,) and (J,)",
            f"{shapes}",
            _DAMAGED,
            "projection file",
        )
    for tensor in (matrix, offset, direction):
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ImageToPromptError("finite float32 numbers", got, _DAMAGED, "projection file")
    lengths = float(offset.double().norm()), float(direction.double().norm())
    if not (lengths[0] > 0 and abs(lengths[1] - 1) < 1e-3):
        raise ImageToPromptError(
            "an offset that is not zero and a direction of length 1",
            f"lengths {lengths[0]:.3g} and {lengths[1]:.3g}",
            _DAMAGED,
            "projection file",
        )


TENSORS = ("matrix", "offset", "direction")
NUMBERS = tuple(field.name for field in fields(Centred) if field.name not in TENSORS)
