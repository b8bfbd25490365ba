"""A small family whose states are smooth functions of what a caption says.

Two encoders, as in SDXL: states at EOS and at pads, and a pooled vector of the second. A picture's
embedding is that of a caption plus a gap along the first direction of the joint space.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from image_to_prompt.projection import Family, Part

J = 8
TOY = Family("toy", (Part("a", 6, 49407, False), Part("b", 10, 0, False)), pooled="b", layer=-2)


def captions(count: int, seed: int = 3) -> Tensor:
    """Joint embeddings (N, J) with a mean of their own."""
    noise = torch.randn(count, J, generator=torch.Generator().manual_seed(seed))
    return noise + 2 * torch.eye(J)[1]


def pictures(count: int, gap: float = 0.0, seed: int = 5) -> Tensor:
    """Image embeddings (N, J) of captions, apart from them along the first direction."""
    return captions(count, seed) + gap * torch.eye(J)[0]


def states_of(joint: Tensor) -> dict[str, Tensor]:
    """States by name: linear maps of the unit embedding, a mean, and a little curvature."""
    t = normalize(joint, dim=-1)
    draw = torch.Generator().manual_seed(7)
    found = {}
    for name in TOY.reading_names:
        width = 10 if name == "pooled" else TOY.part(name[0]).width
        matrix, mean = (torch.randn(width, n, generator=draw) for n in (J, 1))
        u = t @ matrix.T
        found[name] = 3 * mean[:, 0] + 4 * u + 0.2 * u**2
    return found
