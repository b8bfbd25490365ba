"""Preservation losses: predictions that training should leave as they were before it.

    target = the model's prediction before training, for a prompt and a noisy image
    loss   = squared error of its prediction in training, for the same prompt and noise

This is self-distillation: the teacher is the model before training.
Prompt preservation: the prompts are the image's own, edited by texts: [SOS, words, e + a T, ...].
Without it a trained image overrides the text, since both share the same slots (ours).
Prior preservation (Ruiz et al. 2023): the images are of other kinds, under their own prompts.
Without it every image comes to look like the trained ones. Ruiz et al. train on images that the
model has drawn itself; here the teacher's prediction is the target, so that any images will do
(ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..config.training_config import PreservationConfig
from ..data.batches import Batch, batch_of
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from .prompt_form import PromptForm, Prompts, joined

MIN_TEXT_WEIGHT = 0.4  # of the text weights that are drawn; the paper's own is 0.6


class PreservationBatch(Protocol):
    """Pairs of an image and a time step, and the prompt of each pair."""

    @property
    def batch(self) -> Batch:
        """The pairs."""
        ...

    @property
    def teacher_prediction(self) -> tuple[Tensor, ...] | None:
        """The teacher's prediction (4, h, w) for each pair; None: not computed yet."""
        ...

    def contexts(self, form: PromptForm, embeddings: Tensor, index: Tensor) -> Prompts:
        """Prompts of the pairs `index` (G,), for the images' embeddings (B, E)."""
        ...


@dataclass(frozen=True, eq=False)
class PromptPreservation:
    """K pairs, each with its image's prompt edited by a text.

    text_index: (K,), indices into prompts; text_weights: (K,).
    """

    batch: Batch
    prompts: EncodedPrompts
    text_index: Tensor
    text_weights: Tensor
    teacher_prediction: tuple[Tensor, ...] | None = None

    def contexts(self, form: PromptForm, embeddings: Tensor, index: Tensor) -> Prompts:
        """See `PreservationBatch.contexts`."""
        rows = []
        for pair in index.tolist():
            text, image = int(self.text_index[pair]), int(self.batch.image_index[pair])
            own = embeddings[image : image + 1]
            rows.append(form.edited(own, self.prompts, text, float(self.text_weights[pair])))
        return joined(rows)


@dataclass(frozen=True, eq=False)
class PriorPreservation:
    """K pairs, each with its image's own prompt."""

    batch: Batch
    teacher_prediction: tuple[Tensor, ...] | None = None

    def contexts(self, form: PromptForm, embeddings: Tensor, index: Tensor) -> Prompts:
        """See `PreservationBatch.contexts`."""
        return form.of_images(embeddings[self.batch.image_index[index].to(embeddings.device)])


@dataclass(frozen=True, eq=False)
class Regularizers:
    """The preservation batches of a step, either or both."""

    prompts: PromptPreservation | None = None
    prior: PriorPreservation | None = None

    def weighted(self, config: PreservationConfig) -> list[tuple[PreservationBatch, float]]:
        """Those that are there, and the weight of each of their pairs."""
        parts: list[tuple[PreservationBatch, float]] = []
        if self.prompts is not None:
            parts.append((self.prompts, config.preserve_weight))
        if self.prior is not None:
            parts.append((self.prior, config.prior_loss_weight))
        return parts


def prompt_preservation(
    source: TrainingImages,
    images: list[int],
    density: Tensor,
    prompts: EncodedPrompts,
    config: PreservationConfig,
    generator: torch.Generator,
) -> PromptPreservation:
    """`preserve_pairs` pairs of these images in turn, with random texts and text weights.

    Time steps are drawn from the density (T,).
    """
    count = config.preserve_pairs
    # One time step each of as many images as pairs: those beyond the last begin again.
    turns = [place % len(images) for place in range(count)]
    drawn = batch_of(source, [images[k] for k in turns], 1, density, generator)
    index = torch.tensor(turns)
    batch = Batch(source, images, index, drawn.timesteps, drawn.noise, drawn.dropout_u)
    text_index = torch.randint(len(prompts.eos), (count,), generator=generator)
    spread = config.max_text_weight - MIN_TEXT_WEIGHT
    text_weights = MIN_TEXT_WEIGHT + spread * torch.rand(count, generator=generator)
    return PromptPreservation(batch, prompts, text_index, text_weights)


def prior_preservation(
    prior: TrainingImages, count: int, density: Tensor, generator: torch.Generator
) -> PriorPreservation:
    """`count` random ones of the prior images, at one time step each."""
    images = torch.randint(len(prior), (count,), generator=generator).tolist()
    return PriorPreservation(batch_of(prior, images, 1, density, generator))
