"""The randomness of training: which pictures, which noise levels, which noise. From seeds alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .dataset import TrainingImages

HELD_OUT_LEVELS = 8
_EPOCH, _HELD_OUT = 1 << 40, 2 << 40  # streams of their own, far from any step's number


@dataclass(frozen=True, eq=False)
class Batch:
    """P pairs of a picture and a noise level.

    pictures: the B <= P different ones, as indices; owner: (P,), each pair's place in `pictures`.
    times: (P,); noise: P tensors (4, h, w); u: (P,) uniform numbers, for what a recipe leaves
    to chance.
    """

    source: TrainingImages
    pictures: list[int]
    owner: Tensor
    times: Tensor
    noise: tuple[Tensor, ...]
    u: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def groups(self, size: int) -> Iterator[Tensor]:
        """Indices of pairs that fit into one tensor: of one size, at most `size` of them."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, noise in enumerate(self.noise):
            shapes.setdefault(tuple(noise.shape), []).append(index)
        for same in shapes.values():
            yield from torch.tensor(same).split(size or len(same))

    def latents(self, index: Tensor) -> Tensor:
        """Clean latents (G, 4, h, w) of the pairs (G,)."""
        places = [self.pictures[k] for k in self.owner[index].tolist()]
        return torch.stack([self.source.latents[k] for k in places])


def generator_of(seed: int, stream: int) -> torch.Generator:
    """A generator that depends on these two numbers only."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (stream + 2) * 0xBF58476D1CE4E5B9) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


def epoch_batch(count: int, size: int, step: int, seed: int) -> list[int]:
    """The pictures of a step: every epoch shows each of `count` once, in a new order."""
    epoch, place = divmod(step, -(-count // size))
    order = torch.randperm(count, generator=generator_of(seed, _EPOCH + epoch)).tolist()
    return order[place * size : (place + 1) * size]


def batch_of(
    source: TrainingImages,
    chosen: list[int],
    levels: int,
    weights: Tensor,
    generator: torch.Generator,
) -> Batch:
    """Each chosen picture at `levels` noise levels.

    weights: (T,), how much each time step counts: times are drawn by them instead of the loss
    being multiplied. Each pair has its own slice of that distribution and a random place in it,
    so that the mean over levels is far steadier than with independent draws.
    """
    owner = torch.arange(len(chosen)).repeat(levels)  # (P,)
    pairs = len(owner)
    u = torch.rand(2, pairs, generator=generator)
    share = weights.double().cumsum(0) / weights.double().sum()
    times = torch.searchsorted(share, (torch.arange(pairs) + u[0].double()) / pairs)
    times = times.clamp(max=len(weights) - 1)
    device = source.embeds.device
    noise = tuple(
        torch.randn(source.latents[chosen[k]].shape, generator=generator).to(device)
        for k in owner.tolist()
    )
    return Batch(source, chosen, owner, times.to(device), noise, u[1])


def held_out_batches(source: TrainingImages, weights: Tensor, seed: int) -> Iterator[Batch]:
    """The same pairs every time: each picture at a few levels."""
    for index in range(len(source)):
        generator = generator_of(seed, _HELD_OUT + index)
        yield batch_of(source, [index], HELD_OUT_LEVELS, weights, generator)
