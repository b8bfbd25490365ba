"""The optional inputs with which Load Projection closes the gap between pictures and texts."""

from __future__ import annotations

from ..families.load import CORPUS_SIZE, MAX_CORPUS
from ..host.api import io


def gap_inputs() -> list[io.Input]:
    """The optional inputs at the end of Load Projection."""
    return [*_sources(), *_settings(), _vision(), _corpus()]


def _sources() -> list[io.Input]:
    return [
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip=(
                "With the CLIP of an SDXL, SDXL refiner or SD 2.x checkpoint the projection is "
                "made for that model: its text encoders encode captions once. With that of SD 1.x "
                "it is needed for a gap above 0 alone. A saved projection does not need it."
            ),
        ),
        io.Image.Input(
            "image",
            optional=True,
            tooltip=(
                "For SDXL and SD 2.x, or a gap above 0: 8 or more pictures of any kind, better 16 "
                "to 32, as a batch or from a folder. Their mean is taken out of every picture; a "
                "gap needs 8 for it. Without them the first direction of CLIP's own visual "
                "projection is taken out. Needs clip_vision."
            ),
        ),
    ]


def _settings() -> list[io.Input]:
    return [
        io.String.Input(
            "captions",
            default="",
            multiline=True,
            optional=True,
            tooltip=(
                "For a gap above 0: 32 or more captions, one a line, as different as the pictures "
                "you will use; 300 are plenty. Captions of one kind give worse prompts. Empty: "
                "300 built-in ones. For SDXL and SD 2.x: captions beside the built-in ones, such "
                "as tags for a model that was trained on tags."
            ),
        ),
        io.Float.Input(
            "gap",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip=(
                "How far a picture's prompt moves towards the texts that the model was trained "
                "on. 0: as in the paper; a saved projection keeps its own gap. 1: the mean and "
                "the length of encoded captions (28.3 for SD 1.x where the paper has 27.5), so "
                "that text is added beside their common part. Not yet judged on a real SD model."
            ),
        ),
    ]


def _vision() -> io.Input:
    return io.ClipVision.Input(
        "clip_vision",
        optional=True,
        tooltip=(
            "For pictures on socket image: the vision encoder of the same CLIP, for SD 1.x and "
            "SDXL clip-vit-large-patch14. Another one makes the projection for itself: "
            "clip_vision_g for SDXL and its refiner, CLIP-ViT-H-14 for SD 2.x."
        ),
    )


def _corpus() -> io.Input:
    return io.Int.Input(
        "corpus_size",
        default=CORPUS_SIZE,
        min=0,
        max=MAX_CORPUS,
        step=100,
        optional=True,
        tooltip=(
            "For SDXL and SD 2.x: how many built-in captions are encoded, once. 4000 is for a GPU; "
            "1000 takes a quarter of the time and is meant for a CPU. 0: those on captions alone, "
            "at least 100. Other projections ignore it."
        ),
    )
