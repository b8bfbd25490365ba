"""The method on the narrow models: a denoiser, the closed form, and what training reads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from image_to_prompt.projection import (
    DiffusersDenoiser,
    EncodedPrompts,
    Projection,
    Trainer,
    TrainingConfig,
    TrainingImages,
    assemble,
    refine,
)

from ..experiments.centred_rows import closed_projection
from ..experiments.fit_common import joined
from .rows import NORM
from .sampling import Miniature
from .train_unet import schedule
from .world import COLOURS, THINGS


def edit_texts() -> list[str]:
    """What edits say in this world: every thing, and every ground; as many texts of each kind."""
    things = [f"a {thing}" for thing in THINGS]
    grounds = [f"on a {ground} background" for ground in COLOURS]
    return things + grounds * (len(THINGS) // len(COLOURS))


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
        denoiser = DiffusersDenoiser(mini.unet, schedule())
        return cls(mini, denoiser, closed_projection(mini.clip, NORM), mini.states([""])[0])

    def texts(self) -> EncodedPrompts:
        """What edits say in this world, for prompt preservation."""
        states, ends = self.mini.states(edit_texts())
        return EncodedPrompts(states, tuple(ends.tolist()))

    def images(self, pictures: Tensor) -> TrainingImages:
        """What training reads of pictures (N, 3, 96, 96) in [0, 1]."""
        return TrainingImages(
            tuple(self.mini.encode(pictures)), self.mini.image_embeds(pictures), None
        )

    def contexts(self, projection: Projection, embeds: Tensor) -> Tensor:
        """Conditions (N, 77, 96) of image embeddings (N, 96)."""
        return assemble(self.null[0, 0], projection.apply(embeds))

    def draw(self, projection: Projection, context: Tensor, noise: Tensor) -> Tensor:
        """Pictures (N, 3, 96, 96) by the U-Net with the projection's changes of its weights."""
        change = projection.cross_attention
        with joined(self.denoiser, {} if change is None else change.deltas):
            return self.mini.draw(context, noise)

    def refined(self, alone: TrainingImages, settings: TrainingConfig, steps: int) -> Projection:
        """The projection after `steps` of Online Refine on these images."""
        trainer = Trainer(
            self.denoiser,
            self.closed,
            alone,
            self.null,
            settings,
            0,
            schedule_steps=steps,
            prompts=self.texts(),
        )
        for _ in refine(trainer, steps):
            pass
        return trainer.result()
