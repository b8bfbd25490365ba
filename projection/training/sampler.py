"""The random inputs of every step of a run: from its seed and the step's number alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.training_config import TrainingConfig
from ..data.batches import Batch, batch_of, epoch_batch, generator_of
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from ..diffusion.preservation import (
    PriorPreservation,
    PromptPreservation,
    prior_preservation,
    prompt_preservation,
)

# Streams of randomness of their own, far from any step's number.
_PROMPTS, _INITIALIZATION, _SKETCH, _PRIOR = (part << 40 for part in (3, 4, 5, 6))


@dataclass(frozen=True, eq=False)
class StepSampler:
    """Draws images, time steps, noise, texts and prior images for each step.

    density: (T,), probability of each time step.
    """

    images: TrainingImages
    density: Tensor
    config: TrainingConfig
    seed: int
    prompts: EncodedPrompts | None = None
    prior: TrainingImages | None = None

    def batch(self, step: int) -> Batch:
        """The images and time steps of a step."""
        return self._batch(step, generator_of(self.seed, step))

    def initialization_batches(self) -> list[Batch]:
        """The batches of gradient initialisation."""
        count = self.config.lora.gradient_init_batches if self.config.lora else 0
        return [
            self._batch(turn, generator_of(self.seed, _INITIALIZATION + turn))
            for turn in range(count)
        ]

    def sketch_generator(self) -> torch.Generator:
        """The generator of gradient initialisation's random sketch."""
        return generator_of(self.seed, _SKETCH)

    def prompt_preservation(self, step: int) -> PromptPreservation | None:
        """The prompt preservation of a step; None where the configuration has none."""
        config = self.config.preservation
        if not config.preserve_pairs or self.prompts is None:
            return None
        generator = generator_of(self.seed, _PROMPTS + step)
        images = self._images(step)
        return prompt_preservation(
            self.images, images, self.density, self.prompts, config, generator
        )

    def prior_preservation(self, step: int) -> PriorPreservation | None:
        """The prior preservation of a step; None where there is none, or no prior images."""
        count = self.config.preservation.prior_batch_size
        if not count or self.prior is None:
            return None
        generator = generator_of(self.seed, _PRIOR + step)
        return prior_preservation(self.prior, count, self.density, generator)

    def _images(self, step: int) -> list[int]:
        return epoch_batch(len(self.images), self.config.batch_size, step, self.seed)

    def _batch(self, step: int, generator: torch.Generator) -> Batch:
        count = self.config.noise.timesteps_per_image
        return batch_of(self.images, self._images(step), count, self.density, generator)
