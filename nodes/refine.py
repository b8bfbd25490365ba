"""OnlineRefine: a few training steps on the reference itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..projection import REFINE, Projection, refine, training_config
from .host import api as host
from .host.api import io
from .inputs.advice import with_advice
from .inputs.checks import check_choice, check_count, check_number, check_seed, check_text
from .training import widgets as training_inputs
from .training.images import single_pictures
from .training.session import CROPS, Models, outputs, run, trainer_of, training_images
from .types import CATEGORY

STEPS = 30
_PRESET = (
    "What is trained. transformer blocks: LoRA of every linear layer in the U-Net's transformer "
    "blocks; follows the picture closest. cross-attention: LoRA of to_k and to_v only. embedding: "
    "a residual on the prompt only, the smallest change. Or both of these."
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
                "Trains for a few steps on the reference picture itself, so that what no caption "
                "states, such as place and size, carries over; text still steers the result. The "
                "connected model stays as it is."
            ),
            inputs=[
                *training_inputs.sockets("The reference, or a batch of views of the same thing."),
                io.Int.Input(
                    "steps",
                    default=STEPS,
                    min=0,
                    max=10000,
                    tooltip=(
                        "Training steps. 30 is ready to use; more follow the picture more closely "
                        "and weaken the influence of text. 0 leaves the projection as it is."
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
                        "Texts that you mean to edit with, one a line: the model keeps responding "
                        "to these prompts. Empty: to phrases of all kinds."
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
        check_seed(seed)
        check_count(preview_every, "preview_every", 0)
        config = training_config(REFINE, preset, check_number(learning_rate, "learning_rate"))
        check_choice(crop, CROPS, "crop")
        check_count(steps, "steps", 0)
        texts = lines(keep_texts)
        singles = single_pictures([image], crop)
        models = Models(model, vae, clip, clip_vision, projection, memory)
        images = training_images(models, singles, config, crop, check_count(size, "size", 64))
        trainer = trainer_of(models, config, seed, steps, images, preserved_texts=texts)
        run(models, trainer, refine(trainer, steps), steps, preview_every)
        return outputs(models, trainer)


def lines(text: str) -> list[str]:
    """The lines of a text that are not blank."""
    return [line.strip() for line in check_text(text, "keep_texts").splitlines() if line.strip()]


NODES = [OnlineRefine]
