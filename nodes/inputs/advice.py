"""What to do about an error, in the words of the graph: which node, socket, widget or file.

The library's errors name a subject and give advice to programmers; here the subject is given the
place where a user of ComfyUI mends it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from ...projection.errors import ImageToPromptError

CLIP_FILE = (
    "Load a full CLIP file on LoadProjection: for SD 1.x, openai/clip-vit-large-patch14's "
    "model.safetensors, placed in models/text_encoders or models/clip_vision."
)
ADVICE = MappingProxyType(
    {
        "block weights": (
            "Correct weights on ImageToPromptBlocks, or choose a preset; its help lists the blocks."
        ),
        "captions": (
            "Give more and broader captions on LoadProjection (captions), or none for built-in "
            "ones; check the text encoder (socket clip)."
        ),
        "clip file": CLIP_FILE,
        "concept words": (
            "Give at least 3 different words of one kind on ImageToPromptMix (words), such as: "
            "oak, birch, pine."
        ),
        "cutoff": "Lower the cutoff on LoadProjection, or set it to 0 for automatic.",
        "frames": "Correct frames on ImageToPromptEmbed: one for each picture, in rising order.",
        "image": "Check the picture (socket image) and the CLIP vision model for NaN.",
        "image weights": (
            "Correct image_weights on ImageToPromptEmbed, or leave it empty for equal weights."
        ),
        "images": "Give at least one picture (socket image).",
        "inverse": "Load the full CLIP file on LoadProjection, method pseudo-inverse or transpose.",
        "mask": (
            "Paint over the part of the picture that counts (socket mask); crop center cuts off "
            "the borders of wide and tall pictures."
        ),
        "mean picture": "Give at least 8 pictures to LoadProjection (socket image), or none.",
        "model": "Connect a checkpoint of the projection's model family (socket model).",
        "model family": (
            "Use the projection with the model family it was fitted on (socket model)."
        ),
        "projection file": (
            "The projection file is damaged: make it anew with LoadProjection and SaveProjection."
        ),
        "prompt file": (
            "Choose a file in models/prompts that Save Prompt wrote, or save the prompt again."
        ),
        "prompt to save": (
            "Connect the CONDITIONING that the projection made (sockets conditioning, projection)."
        ),
        "saved projection": "Save the projection again with SaveProjection.",
        "text encoder": "Connect the CLIP of an SD 1.x checkpoint (socket clip).",
        "text encoder pairing": (
            "Use the projection of the same CLIP as the text encoder (sockets clip, projection)."
        ),
        "text states": "Check the text encoder for NaN (socket clip).",
        "vision encoder": (
            "Load the CLIP vision model that belongs to the projection (socket clip_vision)."
        ),
        "wrong file": (
            "Choose a file saved by SaveProjection, or a full CLIP file (text and vision) on "
            "LoadProjection."
        ),
    }
)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def advised(error: ImageToPromptError) -> ImageToPromptError:
    """The same error, with the graph's advice where its subject has some."""
    do = ADVICE.get(error.subject, error.do)
    return ImageToPromptError(error.expected, error.got, do, error.subject)


def with_advice(execute: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a node's method: library errors leave it with the graph's advice."""

    @functools.wraps(execute)
    def advising(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return execute(*args, **kwargs)
        except ImageToPromptError as error:
            if error.subject not in ADVICE:
                raise
            raise advised(error) from error

    return advising
