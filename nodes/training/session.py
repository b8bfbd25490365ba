"""What OnlineRefine and FitProjection share: checks, what is computed once, and the run itself."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...projection import (
    EncodedPrompts,
    ImageToPromptError,
    Progress,
    Projection,
    Trainer,
    TrainingConfig,
    TrainingImages,
    assemble,
    check_maps,
    encode_pictures,
    phrases,
)
from ...projection.closed_form.clip_identity import fingerprint
from ..checks import check_choice, check_projection, check_socket
from ..host import api as host
from ..host import progress as host_training
from ..host.fingerprint import model_fingerprint
from ..host.patches import patch_model
from ..host.text import encoded_texts
from ..host.unet import HostDenoiser
from ..host.vision import HostTower, image_embeddings, preprocessed
from .images import fitted_to
from .loss_curve import loss_curve
from .preview import sample

log = logging.getLogger(__name__)

CROPS = ("center", "none")
FRUGAL = "low"
_PHRASES = 64  # whose say is kept; one CLIP pass each
# How many of a step's noisy pictures the model sees at a time, given how many fit; 0: all.
MEMORY: dict[str, Callable[[int], int]] = {
    "automatic": lambda fitting: fitting,
    "fast": lambda _: 0,
    FRUGAL: lambda _: 1,
}


@dataclass(frozen=True, eq=False)
class Models:
    """What both training nodes are connected to. Raises ImageToPromptError before any work."""

    model: Any
    vae: Any
    clip: Any
    clip_vision: Any
    projection: Projection
    memory: str = "automatic"
    denoiser: HostDenoiser = field(init=False)

    def __post_init__(self) -> None:
        encoder = check_projection(self.projection).encoder
        check_choice(self.memory, MEMORY, "memory")
        for socket in ("model", "vae", "clip", "clip_vision"):
            check_socket(getattr(self, socket), socket)
        host.check_clip(self.clip, encoder.text_width, encoder.name)
        visual = host.check_clip_vision(self.clip_vision, encoder.joint_width, encoder.name)
        if encoder.visual_projection not in (None, fingerprint(visual)):
            raise ImageToPromptError(
                f"the vision encoder of the projection's own {encoder.name}",
                "another CLIP of the same width",
                "Load CLIP vision and projection from one file (socket clip_vision).",
            )
        denoiser = HostDenoiser(self.model, encoder.text_width, self.memory == FRUGAL)
        object.__setattr__(self, "denoiser", denoiser)
        host_training.check_vae(self.vae, self.model)
        if self.projection.cross_attention is not None:
            check_maps(self.projection.cross_attention, denoiser.layers)

    def null_prompt(self) -> Tensor:
        """The encoded empty prompt (1, 77, D)."""
        return host.encode_text(self.clip, "").entries[0][0]

    def texts(self, kept: Sequence[str] = ()) -> EncodedPrompts:
        """Texts whose say training is to keep; none given: phrases of all kinds."""
        return encoded_texts(self.clip, kept or phrases(_PHRASES))

    def chunk(self, *pictures: TrainingImages | None) -> int:
        """How many noisy pictures the model is to see at a time, as `memory` says; 0: all."""
        every = [latents.shape[1:] for some in pictures if some for latents in some.latents]
        largest = max(every, key=math.prod)
        return MEMORY[self.memory](self.denoiser.fitting(largest))


def pictures_of(
    models: Models, singles: Sequence[Tensor], recipe: TrainingConfig, crop: str, size: int
) -> TrainingImages:
    """Everything that training reads of these pictures (1, H, W, 3), computed once."""
    vision = models.projection.vision
    embeds = torch.cat(list(image_embeddings(models.clip_vision, singles, crop, vision)))
    pixels = None
    if recipe.vision:
        each = [preprocessed(models.clip_vision, picture, crop).cpu() for picture in singles]
        pixels = torch.cat(each)
    fitted = [fitted_to(picture, size) for picture in singles]
    latents = host_training.latents_of(models.vae, models.model, fitted)
    # Training happens where the embeddings are: beside the U-Net.
    return TrainingImages(latents, embeds.to(models.denoiser.device), pixels)


def trainer_of(
    models: Models,
    pictures: TrainingImages,
    recipe: TrainingConfig,
    seed: int,
    planned: int,
    held_out: TrainingImages | None = None,
    prior: TrainingImages | None = None,
    kept: Sequence[str] = (),
) -> Trainer:
    """A trainer of the user's models, before its first of the planned steps; kept: texts."""
    tower = HostTower(models.clip_vision, models.denoiser.device) if recipe.vision else None
    return Trainer(
        models.denoiser,
        models.projection,
        pictures,
        models.null_prompt(),
        recipe,
        seed,
        held_out,
        tower,
        models.chunk(pictures, held_out, prior),
        planned,
        models.texts(kept) if recipe.keep else None,
        prior,
    )


def run(
    models: Models,
    trainer: Trainer,
    pictures: TrainingImages,
    progress: Iterable[Progress],
    total: int,
    every: int,
) -> None:
    """Take the steps, with the host's progress bar, interrupt, and a preview `every` n steps."""
    bar = host_training.ProgressBar(models.denoiser, total)
    bar.show(trainer.steps_done)
    for state in progress:
        wanted = bar.shows_pictures and every > 0 and state.step % every == 0
        bar.show(state.step, preview(models, trainer.current(), pictures) if wanted else None)


def preview(models: Models, projection: Projection, pictures: TrainingImages) -> Tensor:
    """What the first picture's prompt gives as things stand: latents (1, 4, h, w)."""
    embeds = pictures.embeds[:1]
    if pictures.pixels is not None:
        tower = HostTower(models.clip_vision, models.denoiser.device)
        embeds = encode_pictures(tower, pictures.pixels[:1], projection.vision)
    context = assemble(models.null_prompt()[0, 0], projection.apply(embeds))
    deltas = projection.cross_attention.deltas if projection.cross_attention else {}
    return sample(models.denoiser, context, pictures.latents[0].shape, deltas)


def warn_unless_better(trainer: Trainer) -> None:
    """Say so where the best state by the held-out loss is the one before the first step."""
    losses = [loss for _, loss in trainer.held_out_losses]
    if len(losses) > 1 and min(losses) == losses[0]:
        log.warning(
            "no epoch lowered the loss on the held-out pictures: the projection is as it came. "
            "More pictures or a lower learning_rate may help; held_out 0 keeps the last state."
        )


def outputs(models: Models, trainer: Trainer) -> host.io.NodeOutput:
    """MODEL, PROJECTION, and the curve."""
    warn_unless_better(trainer)
    projection = trainer.result()
    return host.io.NodeOutput(
        patch_model(models.model, projection.cross_attention, 1.0),
        projection,
        loss_curve(trainer.losses, trainer.held_out_losses),
    )


def run_name(models: Models, singles: Sequence[Tensor], *settings: object) -> str:
    """A name that is the same for the same pictures, models, projection and settings."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(model_fingerprint(models.model).encode())
    known = [models.projection.matrix]
    residual = models.projection.residual
    if residual is not None:
        known += [residual.down, residual.up, residual.shift]
    for tensor in (*known, *singles):
        digest.update(fingerprint(tensor).encode())
    return digest.hexdigest()[:20]
