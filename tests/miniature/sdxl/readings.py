"""From a picture to the states that SDXL reads: one linear map for each kind of state.

    x = v/|v| - centre          v: L's joint embedding of a picture (96,)
    e = offset + spread scale unit(M x)

M by ridge regression from captions alone: their joint embeddings by L, and the states that both
encoders give them. offset and scale are mean and standard deviation of each channel, spread the
mean length of captions' deviations in units of scale. The centre is the mean of pictures, shrunk
by how uncertain the mean of so few is, or without pictures the captions' mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..drawings.captions import all_captions
from ..drawings.world import pairs
from .encoders import Prompts, TextEncoders
from .models import L_WIDTH

RIDGE = 0.1  # of the mean variance of the joint embeddings
EVERY = 3  # so many pairs: their captions are 16 times the joint space's dimensions
KINDS = ("l.eos", "l.pad", "g.eos", "g.pad", "pooled")


@dataclass(frozen=True)
class Reading:
    """One map: matrix (D, 96) in units of scale, offset (D,), scale (D,), spread."""

    matrix: Tensor
    offset: Tensor
    scale: Tensor
    spread: float

    @classmethod
    def fit(cls, joint: Tensor, states: Tensor) -> Reading:
        """By least squares from centred joint embeddings (N, 96) to states (N, D)."""
        x, offset = joint.double(), states.double().mean(dim=0)
        deviation = states.double() - offset
        scale = deviation.square().mean(dim=0).sqrt().clamp(min=1e-6)
        y = deviation / scale
        covariance = x.T @ x
        damping = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
        matrix = torch.linalg.solve(covariance + damping, x.T @ y).T
        spread = float(y.norm(dim=-1).mean())
        return cls(matrix.float(), offset.float(), scale.float(), spread)

    def apply(self, x: Tensor) -> Tensor:
        """States (N, D) of centred embeddings (N, 96)."""
        return self.offset + self.spread * self.scale * F.normalize(x @ self.matrix.T, dim=-1)


@dataclass(frozen=True)
class Readings:
    """All readings by their kind, and the centre (96,)."""

    maps: dict[str, Reading]
    centre: Tensor

    @classmethod
    def fit(cls, encoders: TextEncoders) -> Readings:
        """From all captions of every third training pair, with the captions' mean as centre."""
        joint, states = encoded(encoders, pairs("train")[::EVERY])
        centre = joint.mean(dim=0)
        return cls({k: Reading.fit(joint - centre, states[k]) for k in KINDS}, centre)

    def apply(self, v: Tensor) -> dict[str, Tensor]:
        """States (N, D) by kind, of unit joint embeddings v (N, 96)."""
        return {kind: reading.apply(v - self.centre) for kind, reading in self.maps.items()}

    def with_pictures(self, v: Tensor) -> Readings:
        """The same with the centre of pictures' unit embeddings (N, 96), N > 1.

        centre = max(0, 1 - s^2 / (N |m|^2)) m, with mean m and variance s^2: James and Stein.
        """
        mean, variance = v.mean(dim=0), v.var(dim=0).sum()
        kept = (1 - variance / (len(v) * mean.square().sum())).clamp(min=0)
        return replace(self, centre=kept * mean)

    def means(self, count: int) -> dict[str, Tensor]:
        """The offsets alone, `count` times: what no picture says."""
        return {kind: r.offset.expand(count, -1) for kind, r in self.maps.items()}


def encoded(encoders: TextEncoders, table: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Joint embeddings (N, 96) and states by kind of all captions of the pairs (M, 2)."""
    captions = [text for pair in table for text in all_captions(pair)]
    prompts, ends = encoders.encode(captions)
    return encoders.joint(captions), states_of(prompts, ends)


def states_of(prompts: Prompts, ends: Tensor) -> dict[str, Tensor]:
    """States (N, D) by kind: at the first end token, mean of the pads behind it, and pooled."""
    end = prompts.context[torch.arange(len(ends)), ends]
    behind = torch.arange(prompts.context.shape[1]) > ends[:, None]  # (N, 77)
    pad = (prompts.context * behind[:, :, None]).sum(dim=1) / behind.sum(dim=1, keepdim=True)
    (l_end, g_end), (l_pad, g_pad) = (
        s.split([L_WIDTH, s.shape[1] - L_WIDTH], 1) for s in (end, pad)
    )
    return dict(zip(KINDS, (l_end, l_pad, g_end, g_pad, prompts.pooled), strict=True))


def agreement(readings: Readings, encoders: TextEncoders) -> dict[str, float]:
    """Mean centred cosine by kind of held-out captions' states to the readings of them."""
    joint, states = encoded(encoders, pairs("test"))
    found = {
        kind: reading.apply(joint - readings.centre) for kind, reading in readings.maps.items()
    }
    return {
        kind: float(F.cosine_similarity(
            found[kind] - readings.maps[kind].offset, states[kind] - readings.maps[kind].offset
        ).mean())
        for kind in KINDS
    }  # fmt: skip
