"""Online Refine on the narrow models: a denoiser, the readings, and what training reads."""

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
    refine,
)

from ..drawings.bench import edit_texts
from ..drawings.rows import NORM, PICTURES
from ..drawings.train_unet import schedule
from ..experiments.centred_rows import closed_projection
from ..experiments.fit_common import joined
from .encoders import Prompts
from .rows import forms_of
from .sampling import Miniature


@dataclass(frozen=True, eq=False)
class Bench:
    """The miniature, its U-Net as a denoiser, its readings, the empty prompt and its end slot."""

    mini: Miniature
    denoiser: DiffusersDenoiser
    plain: Projection
    empty: Prompts
    end: Tensor

    @classmethod
    def of(cls, mini: Miniature) -> Bench:
        """Everything that training needs; the mean of 32 pictures is removed."""
        forms = forms_of(mini)
        closed = closed_projection(mini.encoders.l, NORM)
        plain = closed.with_readings(forms.by_pictures[PICTURES])
        return cls(mini, DiffusersDenoiser(mini.unet, schedule()), plain, forms.empty, forms.end)

    def texts(self) -> EncodedPrompts:
        """What edits say in this world, for prompt preservation."""
        prompts, ends = self.mini.encoders.encode(edit_texts())
        return EncodedPrompts(prompts.context, tuple(ends.tolist()), prompts.pooled)

    def images(self, pictures: Tensor) -> TrainingImages:
        """What training reads of pictures (N, 3, 96, 96) in [0, 1]."""
        latents = self.mini.encode(pictures)
        return TrainingImages(tuple(latents), self.mini.image_embeds(pictures), None)

    def refined(self, alone: TrainingImages, settings: TrainingConfig, steps: int) -> Projection:
        """The projection after `steps` of Online Refine on these images."""
        trainer = Trainer(
            self.denoiser, self.plain, alone, self.empty.context, settings, 0,
            schedule_steps=steps, prompts=self.texts(), null_pooled=self.empty.pooled,
        )  # fmt: skip
        for _ in refine(trainer, steps):
            pass
        return trainer.result()

    def draw(self, projection: Projection, prompts: Prompts, noise: Tensor) -> Tensor:
        """Pictures (N, 3, 96, 96) by the U-Net with the projection's changes of its weights."""
        change = projection.cross_attention
        with joined(self.denoiser, {} if change is None else change.deltas):
            return self.mini.draw(prompts, noise)
