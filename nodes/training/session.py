"""What OnlineRefine and FitProjection share: the checked models, the encoding, and the run."""

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
    check_maps,
    encode_pictures,
    phrases,
)
from ...projection.closed_form.clip_identity import fingerprint
from ...projection.diffusion.prompt_form import Prompts
from ..host import api as host
from ..host.families.texts import check_text_encoders, texts_of_parts
from ..host.model.checks import ModelFamily, family_for
from ..host.model.fingerprint import attention_fingerprint, model_fingerprint
from ..host.model.patches import patch_model
from ..host.model.vae import check_vae, latents_of
from ..host.progress import ProgressBar
from ..host.text import encoded_texts
from ..host.unet import HostDenoiser
from ..host.vision import HostTower, image_embeddings, preprocessed
from ..inputs.checks import check_choice, check_projection, check_socket
from .images import fitted_to
from .loss_curve import loss_curve
from .preview import sample

log = logging.getLogger(__name__)

CROPS = ("center", "none")
LOW = "low"
_PHRASES = 64  # for prompt preservation; one forward pass of the text encoder each
# Gradient checkpointing; None: where a single picture does not fit into memory without.
_CHECKPOINTING = {"automatic": None, "fast": False, LOW: True}
# Micro-batch size, given how many noisy images fit into memory; 0: a whole step's.
MEMORY: dict[str, Callable[[int], int]] = {
    "automatic": lambda fitting: fitting,
    "fast": lambda _: 0,
    LOW: lambda _: 1,
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
        check_text_encoders(self.clip, self.projection)
        visual = host.check_clip_vision(self.clip_vision, encoder.joint_width, encoder.name)
        if encoder.visual_projection not in (None, fingerprint(visual)):
            raise ImageToPromptError(
                f"the vision encoder of the projection's own {encoder.name}",
                "another CLIP of the same width",
                "Load the one that the projection was made with (socket clip_vision).",
            )
        family, width = family_for(self.projection), self.projection.context_width
        denoiser = HostDenoiser(self.model, width, _CHECKPOINTING[self.memory], family)
        object.__setattr__(self, "denoiser", denoiser)
        check_vae(self.vae, self.model)
        if self.projection.cross_attention is not None:
            check_maps(self.projection.cross_attention, denoiser.linear_shapes)

    def tower(self) -> HostTower:
        """The vision encoder in parts, giving image embeddings where the U-Net is."""
        return HostTower(self.clip_vision, self.denoiser.device)

    @property
    def family(self) -> ModelFamily:
        """The MODEL's."""
        return family_for(self.projection)

    def null_prompt(self) -> Prompts:
        """The encoded empty prompt, with pooled text where the U-Net reads it."""
        states, extras = host.encode_text(self.clip, "").entries[0]
        return Prompts(states, extras["pooled_output"] if self.family.vector_width else None)

    def preserved_prompts(self, texts: Sequence[str] = ()) -> EncodedPrompts:
        """Encoded texts for prompt preservation; none given: phrases of all kinds."""
        some = texts or phrases(_PHRASES)
        if self.projection.readings is None:
            return encoded_texts(self.clip, some)
        keys = self.projection.readings.family.keys
        return texts_of_parts(self.clip, some, keys, self.family.vector_width > 0)

    def micro_batch_size(self, *images: TrainingImages | None) -> int:
        """Noisy images that the model sees at once, as `memory` says; 0: a whole step's."""
        every = [latents.shape[1:] for some in images if some for latents in some.latents]
        largest = max(every, key=math.prod)
        return MEMORY[self.memory](self.denoiser.max_batch_size(largest))


def training_images(
    models: Models, singles: Sequence[Tensor], config: TrainingConfig, crop: str, size: int
) -> TrainingImages:
    """Latents, image embeddings and pixels of these images (1, H, W, 3), at least one."""
    vision = models.projection.vision
    embeds = torch.cat(list(image_embeddings(models.clip_vision, singles, crop, vision)))
    pixels = None
    if config.deep_prompts is not None:
        each = [preprocessed(models.clip_vision, image, crop).cpu() for image in singles]
        pixels = torch.cat(each)
    fitted = [fitted_to(image, size) for image in singles]
    latents = latents_of(models.vae, models.model, fitted)
    # Training runs on the device of the embeddings: the U-Net's.
    return TrainingImages(latents, embeds.to(models.denoiser.device), pixels)


def trainer_of(
    models: Models,
    config: TrainingConfig,
    seed: int,
    schedule_steps: int,
    images: TrainingImages,
    held_out: TrainingImages | None = None,
    prior: TrainingImages | None = None,
    preserved_texts: Sequence[str] = (),
) -> Trainer:
    """A trainer of the user's models, before its first step."""
    preserves = config.preservation.preserve_pairs > 0
    null = models.null_prompt()
    return Trainer(
        models.denoiser,
        models.projection,
        images,
        null.states,
        config,
        seed,
        held_out,
        models.tower() if config.deep_prompts is not None else None,
        models.micro_batch_size(images, held_out, prior),
        schedule_steps,
        models.preserved_prompts(preserved_texts) if preserves else None,
        prior,
        null.pooled,
    )


def run(
    models: Models,
    trainer: Trainer,
    progress: Iterable[Progress],
    total: int,
    every: int,
) -> None:
    """Take the steps, with the host's progress bar, interrupt, and a preview `every` n steps."""
    bar = ProgressBar(models.denoiser, total)
    bar.show(trainer.steps_done)
    for state in progress:
        wanted = bar.shows_pictures and every > 0 and state.step % every == 0
        bar.show(state.step, preview(models, trainer) if wanted else None)


def preview(models: Models, trainer: Trainer) -> Tensor:
    """Latents (1, 4, h, w) sampled from the first image's prompt as training stands."""
    projection, images, form = trainer.current(), trainer.images, trainer.loss.form
    embeds = images.embeds[:1]
    if images.pixels is not None:
        embeds = encode_pictures(models.tower(), images.pixels[:1], projection.vision)
    prompts = form.of_images(form.embeddings(projection, embeds))
    deltas = projection.cross_attention.deltas if projection.cross_attention else {}
    return sample(models.denoiser, prompts, images.latents[0].shape, deltas)


def warn_unless_better(trainer: Trainer) -> None:
    """Log a warning where the best state by the held-out loss is the one before the first step."""
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


def run_names(models: Models, singles: Sequence[Tensor], *settings: object) -> tuple[str, str]:
    """Two names that are the same for the same images, models, projection and settings.

    The second is the one of version 0.1.0, which some models that differ have in common.
    """
    marks = model_fingerprint(models.model), attention_fingerprint(models.model)
    new, earlier = (_run_name(mark, models, singles, settings) for mark in marks)
    return new, earlier


def _run_name(mark: str, models: Models, singles: Sequence[Tensor], settings: object) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(mark.encode())
    known = [models.projection.matrix]
    residual = models.projection.residual
    if residual is not None:
        known += [residual.down, residual.up, residual.shift]
    for tensor in (*known, *singles):
        digest.update(fingerprint(tensor).encode())
    return digest.hexdigest()[:20]
