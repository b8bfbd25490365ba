"""OnlineRefine: a few training steps on the reference itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..projection import REFINE, Projection, recipe, refine
from .advice import with_advice
from .checks import check_choice, check_count, check_number, check_seed, check_text
from .host import api as host
from .host.api import io
from .training import widgets as training_inputs
from .training.images import single_pictures
from .training.session import CROPS, Models, outputs, pictures_of, run, trainer_of
from .types import CATEGORY

STEPS = 30
_PRESET = (
    "What is trained. transformer blocks: small changes all over the model; follows the picture "
    "closest. cross-attention: how the model reads prompts. embedding: the prompt alone, lightest "
    "and gentlest. Or both of these."
)


class OnlineRefine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["refine", "train on image", "sd-ipc", "personalize", "dreambooth"],
            node_id="OnlineRefine",
            display_name="Online Refine",
            category=CATEGORY,
            description=(
                "Trains for a moment on the reference picture itself, so that what no caption "
                "says, like place and size, carries over; text still steers the result. Nothing "
                "is changed in the model that comes in."
            ),
            inputs=[
                *training_inputs.sockets("The reference, or a batch of views of the same thing."),
                io.Int.Input(
                    "steps",
                    default=STEPS,
                    min=0,
                    max=10000,
                    tooltip=(
                        "Training steps. 30 is ready to use; more follow the picture more "
                        "closely and leave text less to say. 0 leaves the projection as it is."
                    ),
                ),
                *training_inputs.settings(REFINE, next(iter(REFINE)), _PRESET),
                *training_inputs.options(every=10),
                io.String.Input(
                    "keep_texts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "Texts that you mean to edit with, one a line: training keeps their say. "
                        "Empty: phrases of all kinds."
                    ),
                ),
            ],
            outputs=training_inputs.results(),
        )

    @classmethod
    @with_advice
    def execute(
        cls,
        model: Any,
        vae: Any,
        clip: Any,
        clip_vision: Any,
        projection: Projection,
        image: Tensor,
        steps: int,
        preset: str,
        learning_rate: float,
        seed: int,
        crop: str = CROPS[0],
        size: int = 512,
        memory: str = "automatic",
        preview_every: int = 10,
        keep_texts: str = "",
    ) -> io.NodeOutput:
        check_choice(preset, REFINE, "preset")
        chosen = recipe(REFINE, preset, check_number(learning_rate, "learning_rate"))
        check_seed(seed)
        check_count(preview_every, "preview_every", 0)
        check_choice(crop, CROPS, "crop")
        check_count(steps, "steps", 0)
        kept = lines(keep_texts)
        singles = single_pictures([image], crop)
        models = Models(model, vae, clip, clip_vision, projection, memory)
        pictures = pictures_of(models, singles, chosen, crop, check_count(size, "size", 64))
        trainer = trainer_of(models, pictures, chosen, seed, steps, kept=kept)
        run(models, trainer, pictures, refine(trainer, steps), steps, preview_every)
        return outputs(models, trainer)


def lines(text: str) -> list[str]:
    """The lines of a text that say something."""
    return [line.strip() for line in check_text(text, "keep_texts").splitlines() if line.strip()]


NODES = [OnlineRefine]
