"""The randomness of training: images, time steps and noise of each step, from seeds alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .dataset import TrainingImages

HELD_OUT_TIMESTEPS = 8  # for each held-out image
_EPOCH, _HELD_OUT = 1 << 40, 2 << 40  # streams of their own, far from any step's number


@dataclass(frozen=True, eq=False)
class Batch:
    """P pairs of an image and a time step.

    images: the B <= P different images, as indices into source; image_index: (P,), each pair's
    place in `images`. timesteps: (P,); noise: P tensors (4, h, w), standard normal; dropout_u:
    (P,), uniform numbers that decide which conditions are dropped.
    """

    source: TrainingImages
    images: list[int]
    image_index: Tensor
    timesteps: Tensor
    noise: tuple[Tensor, ...]
    dropout_u: Tensor

    def __len__(self) -> int:
        return len(self.image_index)

    def micro_batches(self, size: int) -> Iterator[Tensor]:
        """Indices (G,) of pairs of one latent size, at most `size` of them; size 0: any number."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, noise in enumerate(self.noise):
            shapes.setdefault(tuple(noise.shape), []).append(index)
        for same in shapes.values():
            yield from torch.tensor(same).split(size or len(same))

    def latents(self, index: Tensor) -> Tensor:
        """Clean latents (G, 4, h, w) of the pairs `index` (G,)."""
        places = [self.images[k] for k in self.image_index[index].tolist()]
        return torch.stack([self.source.latents[k] for k in places])


def generator_of(seed: int, stream: int) -> torch.Generator:
    """A generator that depends on these two numbers only."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (stream + 2) * 0xBF58476D1CE4E5B9) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


def epoch_batch(count: int, size: int, step: int, seed: int) -> list[int]:
    """The image indices of a step: every epoch has each of `count` once, in a new order."""
    epoch, place = divmod(step, -(-count // size))
    order = torch.randperm(count, generator=generator_of(seed, _EPOCH + epoch)).tolist()
    return order[place * size : (place + 1) * size]


def batch_of(
    source: TrainingImages,
    images: list[int],
    timesteps_per_image: int,
    density: Tensor,
    generator: torch.Generator,
) -> Batch:
    """Each of these images at `timesteps_per_image` time steps.

    density: (T,), probability of each time step up to a factor. Draws are stratified: each pair
    has its own slice of the distribution and a random place in it, so that the mean loss varies
    far less than with independent draws.
    """
    image_index = torch.arange(len(images)).repeat(timesteps_per_image)  # (P,)
    pairs = len(image_index)
    u = torch.rand(2, pairs, generator=generator)
    cumulative = density.double().cumsum(0) / density.double().sum()
    timesteps = torch.searchsorted(cumulative, (torch.arange(pairs) + u[0].double()) / pairs)
    timesteps = timesteps.clamp(max=len(density) - 1)
    device = source.embeds.device
    noise = tuple(
        torch.randn(source.latents[images[k]].shape, generator=generator).to(device)
        for k in image_index.tolist()
    )
    return Batch(source, images, image_index, timesteps.to(device), noise, u[1])


def held_out_batches(source: TrainingImages, density: Tensor, seed: int) -> Iterator[Batch]:
    """The same pairs at every call: each image at HELD_OUT_TIMESTEPS time steps."""
    for index in range(len(source)):
        generator = generator_of(seed, _HELD_OUT + index)
        yield batch_of(source, [index], HELD_OUT_TIMESTEPS, density, generator)
