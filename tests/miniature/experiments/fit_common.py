"""What the measurements of refining and fitting share: the method on the miniature, and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from image_to_prompt.projection import (
    ClipIdentity,
    DiffusersDenoiser,
    EncodedPrompts,
    Projection,
    TrainingImages,
    TransformersTower,
    assemble,
    decompose,
    invert,
)
from image_to_prompt.projection.closed_form.inverse import PAPER_CUTOFF

from ..sampling import Miniature
from ..training.train_unet import schedule
from ..world.oracle import agreement, read
from ..world.preprocess import preprocess
from ..world.scenes import COLOURS, SHAPES, Scenes
from .editing import NODE_SPECS
from .rows import NORM
from .scores import mean, share

WEIGHTS = (0.6, 1.2)  # of the text in edits: the default, and a strong one
EDITS = tuple((kind, weight) for kind in NODE_SPECS for weight in WEIGHTS)


@dataclass(frozen=True, eq=False)
class Bench:
    """The miniature, its U-Net as a denoiser, its closed form, the empty prompt (1, 77, 96)."""

    mini: Miniature
    denoiser: DiffusersDenoiser
    closed: Projection
    null: Tensor

    @classmethod
    def of(cls, mini: Miniature) -> Bench:
        """Everything that training needs, from the narrow models."""
        text, visual = mini.clip.text_projection.weight, mini.clip.visual_projection.weight
        inverse = invert(decompose(text), "pseudo-inverse", PAPER_CUTOFF)
        closed = Projection(
            inverse.matrix,
            inverse.singular_values,
            ClipIdentity.of(text, visual),
            "pseudo-inverse",
            inverse.cutoff,
            inverse.kept,
            NORM,
        )
        return cls(mini, DiffusersDenoiser(mini.unet, schedule()), closed, mini.states([""])[0])

    def texts(self) -> EncodedPrompts:
        """What edits say in this world, "a red circle" and the like: for prompt preservation."""
        phrases = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
        states, ends = self.mini.states(phrases)
        return EncodedPrompts(states, tuple(ends.tolist()))

    @property
    def tower(self) -> TransformersTower:
        """The vision encoder in parts."""
        return TransformersTower(self.mini.clip)

    @torch.no_grad()
    def pictures(self, pictures: Tensor, pixels: bool = False) -> TrainingImages:
        """What training reads of pictures (N, 3, 64, 64) in [0, 1]."""
        latents = [
            self.mini.taesd.encode(part * 2 - 1).latents / self.mini.latent_std
            for part in pictures.split(50)
        ]
        embeds = self.mini.image_embeds(pictures)
        return TrainingImages(
            tuple(torch.cat(latents)), embeds, preprocess(pictures) if pixels else None
        )

    def contexts(self, projection: Projection, embeds: Tensor) -> Tensor:
        """Conditions (N, 77, 96) of image embeddings (N, 96)."""
        return assemble(self.null[0, 0], projection.apply(embeds))

    def draw(self, projection: Projection, context: Tensor, noise: Tensor) -> Tensor:
        """Pictures (N, 3, 64, 64) by the U-Net with the projection's cross-attention."""
        change = projection.cross_attention
        with joined(self.denoiser, {} if change is None else change.deltas):
            return self.mini.draw(context, noise)


@contextmanager
def joined(denoiser: DiffusersDenoiser, deltas: Mapping) -> Iterator[None]:
    """The denoiser's U-Net with the deltas in it, for a whole sampling."""
    with denoiser._delta_hooks(deltas):
        yield


def measured(pictures: Tensor, reference: Tensor, truth: Scenes) -> dict[str, Tensor]:
    """Per picture (N,): pixel error, position, size (pixels; NaN where unreadable), hits."""
    found = agreement(read(pictures), truth)
    return found | {"pixel_error": (pictures - reference).abs().flatten(1).mean(dim=1)}


def scores(found: dict[str, Tensor]) -> dict[str, dict]:
    """Shares and means with their 95 % intervals, in the form of the evaluation's rows."""
    return {
        name: share(values) if values.dtype == torch.bool else mean(values)
        for name, values in found.items()
    }


def ratio(mine: Tensor, other: Tensor, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Ratio of two paired means with its bootstrap interval; pairs with a NaN are left out."""
    both = mine.isfinite() & other.isfinite()
    a, b = mine[both], other[both]
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randint(len(a), (draws, len(a)), generator=generator)
    found = (a[pick].mean(dim=1) / b[pick].mean(dim=1)).sort().values
    low, high = found[int(0.025 * draws)], found[int(0.975 * draws)]
    return {"value": float(a.mean() / b.mean()), "low": float(low), "high": float(high)}
