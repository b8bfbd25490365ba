"""The inputs that OnlineRefine and FitProjection have in common, in their order."""

from __future__ import annotations

from collections.abc import Iterable

from ..host.api import io
from ..types import PROJECTION
from .session import CROPS, MEMORY


def sockets(image: str) -> list[io.Input]:
    """model to image; `image`: the tooltip of the last one."""
    return [
        io.Model.Input(
            "model",
            tooltip=(
                "The MODEL to train for (SD 1.x, SD 2.x or SDXL, as the projection), straight "
                "from the checkpoint or with LoRAs. It stays as it is: the changes are in this "
                "node's MODEL."
            ),
        ),
        io.Vae.Input("vae", tooltip="The checkpoint's VAE: the loss is taken in its latents."),
        io.Clip.Input("clip", tooltip="The checkpoint's CLIP: gives the empty prompt."),
        io.ClipVision.Input(
            "clip_vision",
            tooltip=(
                "The vision encoder of the projection's CLIP: clip-vit-large-patch14 for SD 1.x, "
                "and for SDXL too if the projection was made with it."
            ),
        ),
        PROJECTION.Input(
            "projection",
            tooltip="The start of training: from Load Projection, also one fitted before.",
        ),
        io.Image.Input("image", tooltip=image),
    ]


def settings(presets: Iterable[str], default: str, preset: str) -> list[io.Input]:
    """preset, learning_rate and seed; `preset`: the tooltip of the first."""
    return [
        io.Combo.Input("preset", options=list(presets), default=default, tooltip=preset),
        io.Float.Input(
            "learning_rate",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.0001,
            round=0.000001,
            tooltip=(
                "Learning rate of AdamW. 0: the preset's own. Lower if the loss jumps or the "
                "pictures break, higher if nothing changes."
            ),
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,  # a new one would train anew at every run
            tooltip=(
                "Seed of the training noise. The same seed gives the same result on a CPU with the "
                "same number of threads, else up to rounding."
            ),
        ),
    ]


def options(every: int) -> list[io.Input]:
    """The optional ones: crop, size, memory, preview_every."""
    return [
        io.Combo.Input(
            "crop",
            options=list(CROPS),
            default=CROPS[0],
            optional=True,
            tooltip=(
                "What CLIP encodes of each picture: use the same on Image To Prompt Embed. "
                "center: the middle square. none: the whole picture, squeezed."
            ),
        ),
        io.Int.Input(
            "size",
            default=512,
            min=64,
            max=2048,
            step=64,
            optional=True,
            tooltip=(
                "Larger pictures are scaled down to about size x size pixels, with their own "
                "aspect ratio. 512 is what SD 1.x was made for, 1024 is what SDXL was made for; "
                "less is faster and needs less memory."
            ),
        ),
        io.Combo.Input(
            "memory",
            options=list(MEMORY),
            default="automatic",
            optional=True,
            tooltip=(
                "A step has a batch of noisy pictures. automatic: micro-batches as large as fit "
                "into memory, with gradient checkpointing where not even one does. fast: the "
                "whole batch. low: one at a time, with gradient checkpointing; a third slower or "
                "more."
            ),
        ),
        io.Int.Input(
            "preview_every",
            default=every,
            min=0,
            max=10000,
            optional=True,
            tooltip=(
                "Steps between previews of the current result, where ComfyUI shows previews. "
                "0: none. Each costs six forward passes."
            ),
        ),
    ]


def results() -> list[io.Output]:
    """MODEL, PROJECTION and the curve."""
    return [
        io.Model.Output(
            display_name="MODEL",
            tooltip="The model with the trained changes. Use it with the PROJECTION output.",
        ),
        PROJECTION.Output(
            display_name="PROJECTION",
            tooltip="For Image To Prompt Embed and Save Projection; holds everything trained.",
        ),
        io.Image.Output(
            display_name="IMAGE",
            tooltip="The loss curve, for Preview Image; it should fall.",
        ),
    ]
