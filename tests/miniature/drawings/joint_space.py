"""The joint space by design: the spectrum of W_t, the directions of things and grounds.

At this size training leaves W_t's spectrum where its initialisation put it, so that no cut of
small singular values would mean anything. W_t is therefore given the spectrum of ViT-L/14's
(every eighth of its 768 values) and kept. 20 of the 96 directions lie under the cut of 0.3.

    W_t = U diag(s) V^T      U, V random rotations

Things, grounds, "not named" and wordings have one unit vector each, all orthogonal, within the
left directions u_2 .. u_76 that the cut keeps; u_1 is left for the modality, as in ViT-L/14, where
texts have -.73 on it. The two smallest right directions lie near two channels that carry the start
state, as channels 681 and 19 do in SD 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .captions import TEMPLATES
from .models import TEXT_WIDTH
from .world import COLOURS, THINGS

CUT = 0.3
# fmt: off
SPECTRUM = (
    1.265, .5567, .5455, .5389, .5333, .5291, .5245, .5207, .5167, .5136, .5105, .5077, .5048,
    .5019, .4991, .4961, .4941, .4915, .4893, .4872, .4848, .4825, .48, .4781, .4761, .4736, .4714,
    .4692, .4674, .4655, .4638, .4615, .4595, .4577, .4553, .4535, .4516, .4496, .4477, .4455,
    .4436, .4415, .4399, .4381, .436, .4337, .4321, .4304, .4284, .4266, .4243, .4225, .4208,
    .4189, .4169, .415, .4131, .411, .4091, .4069, .4052, .4028, .4008, .3987, .3967, .3943, .3921,
    .3894, .3862, .3837, .3801, .3769, .3725, .3658, .3516, .3318, .2903, .202, .1253, .0894,
    .0631, .0473, .0385, .0317, .0259, .0214, .0186, .0159, .0134, .0114, .0093, .0075, .0058,
    .0042, .0028, .0011,
)
# fmt: on
KEPT = sum(value > CUT for value in SPECTRUM)
START_CHANNELS = (85, 2)  # channels 681 and 19 of SD 1.5, over 8
NEAR = 0.85  # of each of the two smallest right directions on its channel
SEED = 31
WORDING = 0.5  # of the direction of a caption's wording; those of thing and ground count 1


@dataclass(frozen=True)
class JointSpace:
    """U, V (96, 96) with the singular directions as columns, s (96,), and the named directions.

    things (25, 96), grounds (9, 96) and wordings (28, 96) in the joint space; the last row of
    things and grounds stands for "not named". rest (13, 96) spans what is left of the kept
    directions without u_1.
    """

    U: Tensor
    s: Tensor
    V: Tensor
    things: Tensor
    grounds: Tensor
    wordings: Tensor
    rest: Tensor

    @property
    def projection(self) -> Tensor:
        """W_t (joint, text width)."""
        return self.U * self.s @ self.V.T

    def targets(self, thing: Tensor, ground: Tensor, wording: Tensor | None = None) -> Tensor:
        """Unit vectors (N, 96) of pairs; index -1 for what is not named, or without a wording."""
        total = self.things[thing] + self.grounds[ground]
        if wording is not None:
            total = total + WORDING * self.wordings[wording] * (wording >= 0)[:, None]
        return F.normalize(total, dim=-1)


def rotation(matrix: Tensor) -> Tensor:
    """Orthonormal columns spanning those of `matrix`, the first ones first (Gram-Schmidt)."""
    columns: list[Tensor] = []
    for column in matrix.T:
        for _ in range(2):
            for done in columns:
                column = column - (done @ column) * done
        columns.append(column / column.norm())
    return torch.stack(columns, dim=-1)


def build(seed: int = SEED) -> JointSpace:
    """The joint space of a seed, always the same."""
    generator = torch.Generator().manual_seed(seed)
    width = TEXT_WIDTH
    first, second, third = torch.randn(3, width, width, generator=generator).double()
    U = rotation(first)
    second /= width**0.5
    for index, channel in enumerate(START_CHANNELS):
        second[:, index] *= (1 - NEAR**2) ** 0.5
        second[channel, index] += NEAR
    V = rotation(second).flip(-1)
    kept = U[:, 1:KEPT] @ rotation(third[: KEPT - 1, : KEPT - 1])
    counts = (len(THINGS) + 1, len(COLOURS) + 1, len(TEMPLATES))
    directions = kept.T.float().split([*counts, KEPT - 1 - sum(counts)])
    return JointSpace(U.float(), torch.tensor(SPECTRUM), V.float(), *directions)
