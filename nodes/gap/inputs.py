"""The optional inputs with which Load Projection closes the gap between pictures and texts."""

from __future__ import annotations

from ..host.api import io


def gap_inputs() -> list[io.Input]:
    """The optional inputs at the end of Load Projection."""
    return [*_sources(), *_settings(), _vision()]


def _sources() -> list[io.Input]:
    return [
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip=(
                "For a gap above 0: the text encoder of the SD 1.x checkpoint, which encodes the "
                "captions once. A saved projection that was made with a gap does not need it."
            ),
        ),
        io.Image.Input(
            "image",
            optional=True,
            tooltip=(
                "For a gap above 0: 8 or more pictures of any kind, better 16 to 32, as a batch "
                "or from a folder. "
                "What they have in common is taken out of every picture. Without them the first "
                "direction of CLIP's own visual projection is taken out. Needs clip_vision."
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
                "300 built-in ones."
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
            "For pictures on socket image: the vision encoder of the same CLIP, for SD 1.x "
            "clip-vit-large-patch14."
        ),
    )
