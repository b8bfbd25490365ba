"""Mean and spread of captions' EOS states, and whether the captions are broad enough (ours).

    o = mean h_i          d = mean |h_i - o|          h_i: last-layer EOS states of captions

Captions of one kind give an offset that holds their content: from 27 names of furniture and
rooms, class top-1 on real ViT-L/14 falls from .79 to .35. Such states resemble each other more:
they have cosine .58 among themselves where those of 150 broad classes have .46.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError

MIN_CAPTIONS = 32
# ViT-L/14: cosine .46 among 150 broad classes, .58 among 27 of one kind; |o| / |h| .68 and .76.
ALIKE = 0.55
OFFSET_RATIO, RATIO_TOLERANCE = 0.68, 0.08


@dataclass(frozen=True, eq=False)
class CaptionStatistics:
    """What captions' EOS states have in common. Immutable.

    offset: o (D,) float32, last-layer text state. spread: d. among: mean cosine of different
    captions' states. ratio: |o| over the mean length of a state. count: how many captions.
    """

    offset: Tensor
    spread: float
    among: float
    ratio: float
    count: int

    @classmethod
    def of(cls, states: Tensor) -> CaptionStatistics:
        """From last-layer EOS states (M, D) of M >= 32 captions.

        Raises ImageToPromptError for fewer, for states with NaN, or for captions all the same.
        """
        if states.ndim != 2 or len(states) < MIN_CAPTIONS:
            expected = f"EOS states (M, D) of at least {MIN_CAPTIONS} captions"
            raise _unfit(expected, f"{tuple(states.shape)}")
        h = states.detach().cpu().double()
        lengths = h.norm(dim=-1)
        if not (torch.isfinite(lengths) & (lengths > 0)).all():
            raise _unfit("EOS states of finite numbers", "NaN, infinite or zero states")
        offset = h.mean(dim=0)
        spread = float((h - offset).norm(dim=-1).mean())
        if not spread > 1e-6 * float(lengths.mean()):
            raise _unfit("captions that differ", "captions that are all the same")
        total = normalize(h, dim=-1).sum(dim=0).square().sum()
        among = (float(total) - len(h)) / (len(h) * (len(h) - 1))
        ratio = float(offset.norm() / lengths.mean())
        return cls(offset.float(), spread, among, ratio, len(h))

    def warnings(self) -> list[str]:
        """What speaks against these captions, in sentences; none if nothing does."""
        found = []
        if self.among > ALIKE:
            found.append(
                f"the captions' EOS states are alike (mean cosine {self.among:.2f}, {ALIKE} at "
                "most is usual): captions of one kind give worse prompts, use broader ones"
            )
        elif abs(self.ratio - OFFSET_RATIO) > RATIO_TOLERANCE:
            found.append(
                f"the mean EOS state has {self.ratio:.2f} of a state's length, where ViT-L/14 has "
                f"{OFFSET_RATIO}: another encoder, or unusual captions"
            )
        return found


def _unfit(expected: str, got: str) -> ImageToPromptError:
    do = "Encode more and broader captions with the text encoder of the projection."
    return ImageToPromptError(expected, got, do, "captions")
