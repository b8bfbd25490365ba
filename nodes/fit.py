"""FitProjection: a projection made specific to the domain of some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..projection import (
    FIT,
    TEXT_ONLY,
    ImageToPromptError,
    Projection,
    TrainingConfig,
    captions,
    fit,
    fit_from_text,
    text_projection_of,
    training_config,
)
from .host import api as host
from .host.api import io
from .host.text import caption_states
from .host.vision import image_embeddings
from .inputs.advice import with_advice
from .inputs.checks import check_choice, check_count, check_number, check_seed
from .inputs.lists import as_list
from .training import widgets as training_inputs
from .training.images import single_pictures
from .training.loss_curve import loss_curve
from .training.session import (
    CROPS,
    Models,
    outputs,
    run,
    run_names,
    trainer_of,
    training_images,
)
from .training.unfinished import Unfinished
from .types import CATEGORY

EPOCHS, HELD_OUT, PATIENCE = 30, 0.1, 10
PRESETS = (TEXT_ONLY, *FIT)
_PRESET = (
    f"What is trained. {TEXT_ONLY}: no steps; ridge regression on captions, shifted to the mean of "
    "these pictures. transformer blocks: LoRA of every linear layer in the U-Net's transformer "
    "blocks; measured to help. cross-attention: LoRA of to_k and to_v. embedding: a residual on "
    "the prompt. full: the last two and CLIP's vision encoder; slowest, largest file."
)


class FitProjection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["fine-tune projection", "train projection", "domain", "sd-ipc"],
            node_id="FitProjection",
            display_name="Fit Projection",
            category=CATEGORY,
            description=(
                "Fits a projection to a domain from about 100 pictures of it, for other pictures "
                "of that domain. Stops when the held-out loss no longer falls. An interrupted fit "
                "resumes when it is run again."
            ),
            is_input_list=True,  # the folder loader gives a list, for sizes may differ
            inputs=[
                *training_inputs.sockets(
                    "The domain's pictures, at least two, better 100: a batch or a list, as core's "
                    "folder loader gives it; sizes may differ."
                ),
                io.Int.Input(
                    "epochs",
                    default=EPOCHS,
                    min=0,
                    max=10000,
                    tooltip=(
                        "The largest number of passes over the training pictures: training stops "
                        "early, and the best state is kept."
                    ),
                ),
                *training_inputs.settings(PRESETS, next(iter(FIT)), _PRESET),
                *_stopping(),
                *training_inputs.options(every=50),
                io.Image.Input(
                    "regularization_image",
                    optional=True,
                    tooltip=(
                        "About as many pictures of other kinds, for prior preservation: the model "
                        "keeps drawing them as before. Without them they drift towards the domain."
                    ),
                ),
            ],
            outputs=training_inputs.results(),
        )

    @classmethod
    @with_advice
    def execute(cls, image: Sequence[Tensor], **lists: list[Any]) -> io.NodeOutput:
        others = lists.pop("regularization_image", None) or []
        settings = {name: as_list(values, name)[0] for name, values in lists.items()}
        return _fit(image, regularization_image=others, **settings)


def _stopping() -> list[io.Input]:
    return [
        io.Float.Input(
            "held_out",
            default=HELD_OUT,
            min=0.0,
            max=0.5,
            step=0.05,
            optional=True,
            tooltip=(
                "Share of the pictures that is used for validation only. 0: train on all for all "
                "epochs and keep the last state."
            ),
        ),
        io.Int.Input(
            "patience",
            default=PATIENCE,
            min=1,
            max=10000,
            optional=True,
            tooltip="Epochs without a better held-out loss after which training stops.",
        ),
    ]


def _fit(
    image: Sequence[Tensor],
    model: Any,
    vae: Any,
    clip: Any,
    clip_vision: Any,
    projection: Projection,
    epochs: int,
    preset: str,
    learning_rate: float,
    seed: int,
    held_out: float = HELD_OUT,
    patience: int = PATIENCE,
    crop: str = CROPS[0],
    size: int = 512,
    memory: str = "automatic",
    preview_every: int = 50,
    regularization_image: Sequence[Tensor] = (),
) -> io.NodeOutput:
    check_count(epochs, "epochs", 0)
    check_count(patience, "patience", 1)
    check_count(preview_every, "preview_every", 0)
    check_seed(seed)
    config = _config(preset, check_number(learning_rate, "learning_rate"))
    check_choice(crop, CROPS, "crop")
    singles = _enough(single_pictures(image, crop))
    others = _others(regularization_image, crop)
    models = Models(model, vae, clip, clip_vision, projection, memory)
    if config is None:
        return _from_text(models, singles, crop)
    train, validation = _split(singles, check_number(held_out, "held_out"), seed)
    check_count(size, "size", 64)
    total = epochs * -(-len(train) // config.batch_size)
    images = training_images(models, train, config, crop, size)
    unseen, prior = (
        training_images(models, some, config, crop, size) if some else None
        for some in (validation, others)
    )
    trainer = trainer_of(models, config, seed, total, images, unseen, prior)
    settings = (len(others), preset, float(learning_rate), seed, epochs, held_out, crop, size)
    names = run_names(models, [*singles, *others], *settings)
    with Unfinished(trainer, *names) as unfinished:
        progress = unfinished.keeping(fit(trainer, epochs, patience))
        run(models, trainer, progress, total, preview_every)
        return outputs(models, trainer)


def _config(preset: str, learning_rate: float) -> TrainingConfig | None:
    """How the preset trains; None for text least squares, which takes no steps."""
    if check_choice(preset, PRESETS, "preset") == TEXT_ONLY:
        return None
    return training_config(FIT, preset, learning_rate)


def _enough(singles: list[Tensor]) -> list[Tensor]:
    if len(singles) < 2:
        raise ImageToPromptError(
            "at least two pictures to fit on, better 100",
            "one",
            "Use Online Refine for a single picture, or connect more (socket image).",
        )
    return singles


def _others(image: Sequence[Tensor], crop: str) -> list[Tensor]:
    """Images for prior preservation, maybe none."""
    return single_pictures(image, crop, "regularization_image") if image else []


def _split(singles: list[Tensor], share: float, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images to train on, and those held out: at least one where the share is not 0."""
    if not 0 <= share <= 0.5:
        raise ImageToPromptError("a held_out from 0 to 0.5", f"{share}", "Correct held_out.")
    generator = torch.Generator().manual_seed(seed % 2**63)
    order = torch.randperm(len(singles), generator=generator).tolist()
    count = max(1, round(share * len(singles))) if share else 0
    held = set(order[:count])
    return (
        [picture for index, picture in enumerate(singles) if index not in held],
        [picture for index, picture in enumerate(singles) if index in held],
    )


def _from_text(models: Models, singles: list[Tensor], crop: str) -> io.NodeOutput:
    """Text least squares: the pack's own captions, shifted to the mean of these images.

    The readings of SD 2.x and SDXL are regressions on captions already: these are shifted.
    """
    readings = models.projection.readings
    if readings is None:
        text_projection_of(models.projection)  # or an error, before any work
    embeds = torch.cat(list(image_embeddings(models.clip_vision, singles, crop)))
    if readings is not None:
        shifted = models.projection.with_readings(readings.with_pictures(embeds))
        return io.NodeOutput(models.model, shifted, loss_curve([], []))
    states = caption_states(models.clip, captions())
    fitted = fit_from_text(models.projection, states, embeds)
    return io.NodeOutput(models.model, fitted, loss_curve([], []))


NODES = [FitProjection]
