"""One reading: from a centred image embedding to one kind of text state (ours).

    e = offset + spread scale unit(M x)

    x: a centred image embedding (J,), see `readings`      M: (D, J), in units of `scale`
    offset: mean state of captions (D,)      scale: each channel's standard deviation (D,)
    spread: mean length of captions' deviations from the offset, in units of scale

The least-squares map shrinks directions that it explains badly; setting the length afterwards
undoes the shrinkage, and the offset stays whole. The length is measured in each channel's own
standard deviation, since a few channels of states without LayerNorm are far larger than all others
and would decide it alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError
from ..tensors import is_plain

_DAMAGED = "Make the readings anew from captions."
TENSORS = ("matrix", "offset", "scale")
NUMBERS = ("spread", "r_squared", "cosine")


@dataclass(frozen=True, eq=False)
class Reading:
    """A map from joint CLIP space to one kind of text state. Immutable.

    matrix: M (D, J), joint CLIP space -> text state in units of scale; float32, of numbers that
    float16 holds, so that a file of half the size gives the same bits. offset: (D,), text state.
    scale: (D,) > 0. spread > 0. r_squared: share of the variance of held-out captions' states, in
    units of scale, that M explains. cosine: mean cosine there of M x to the state's deviation.
    Raises ImageToPromptError if the parts do not fit together.
    """

    matrix: Tensor
    offset: Tensor
    scale: Tensor
    spread: float
    r_squared: float
    cosine: float

    def __post_init__(self) -> None:
        tensors = [getattr(self, name) for name in TENSORS]
        shapes = [tuple(t.shape) for t in tensors]
        plain = all(is_plain(t) and t.dtype == torch.float32 for t in tensors)
        width = shapes[0][:1] if len(shapes[0]) == 2 else None
        if not plain or 0 in shapes[0] or shapes[1:] != [width, width]:
            refuse("a reading of shapes (D, J), (D,) and (D,), float32", f"{shapes}")
        finite = all(bool(torch.isfinite(t).all()) for t in tensors)
        numbers = [getattr(self, name) for name in NUMBERS]
        positive = bool((self.scale > 0).all()) and 0 < self.spread < math.inf
        if not (finite and positive and all(map(math.isfinite, numbers))):
            refuse("a reading of finite numbers, scale and spread > 0", f"{numbers}")
        if not torch.equal(self.matrix, self.matrix.half().float()):
            refuse("a matrix of numbers that float16 holds", "finer ones")

    @property
    def width(self) -> int:
        """D, the width of the text state."""
        return self.matrix.shape[0]

    def detached_copy(self) -> Reading:
        """The same reading with tensors of its own, none of them made in inference mode."""
        tensors = {name: getattr(self, name).detach().clone() for name in TENSORS}
        return replace(self, **tensors)

    def apply(self, centred: Tensor) -> Tensor:
        """Text states (B, D) float32 from centred image embeddings x (B, J).

        Raises ImageToPromptError for an embedding of which nothing is left beside the centre.
        """
        matrix, offset, scale = (getattr(self, name).to(centred.device) for name in TENSORS)
        u = centred @ matrix.T  # (B, J) @ (J, D) -> (B, D)
        length = u.norm(dim=-1)
        if not (torch.isfinite(length) & (length > 0)).all():
            raise ImageToPromptError(
                "an image that differs from the mean picture",
                "an image embedding with nothing beside it",
                "Use another picture.",
                "image",
            )
        return offset + self.spread * scale * normalize(u, dim=-1)


def half_precision(matrix: Tensor) -> Tensor:
    """A matrix up to a factor, which `Reading.apply` does not depend on, as float16 holds it.

    Its largest number becomes 1. Rows are in units of each channel's deviation, so that no row is
    lost beside one of larger numbers. Raises ImageToPromptError for zeros or NaN.
    """
    largest = float(matrix.abs().max())
    if not 0 < largest < math.inf:
        refuse("a matrix of finite numbers that are not all zero", f"largest {largest}")
    return (matrix / largest).half().float()


def refuse(expected: str, got: str) -> None:
    """Raise the ImageToPromptError for parts that do not fit together."""
    raise ImageToPromptError(expected, got, _DAMAGED, "projection file")
