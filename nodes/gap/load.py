"""The projection of a file that Load Projection was given, at its gap."""

from __future__ import annotations

import logging
from typing import Any

from ...projection import METHODS, SD1, ImageToPromptError, Projection, load_file, load_weights
from ...projection.errors import printable, quoted
from ...projection.storage.any_file import promises_projection
from ..families.load import other_family, recentred, with_readings
from ..host import files
from ..inputs.checks import check_choice, check_number, check_share
from .form import with_gap

log = logging.getLogger(__name__)


def loaded(
    file: str,
    method: str,
    cutoff: float,
    clip: Any,
    image: Any,
    captions: str,
    gap: float,
    clip_vision: Any,
    corpus_size: int,
) -> Projection:
    """One projection; `image`: a batch of pictures, or a list of batches of any sizes.

    For SD 1.x at this gap; with the CLIP of another model family for that family.
    """
    check_choice(method, METHODS, "method")
    gap, path = check_share(gap, "gap"), readable_path(file)
    projection = load_file(path, method, check_number(cutoff, "cutoff"))
    family = other_family(clip)
    if family is not None or projection.readings is not None:
        if gap:
            log.info("gap has no effect: the projection is not for SD 1.x")
        pictured = (clip_vision, image)
        if family is None and clip is None:
            projection = recentred(projection, *pictured)
        else:
            weights = load_weights(path)
            made = (family or SD1, clip, *pictured, captions, corpus_size)
            projection = with_readings(projection, weights, *made)
    else:
        weights = load_weights(path) if gap else None
        projection = with_gap(projection, weights, gap, clip, clip_vision, image, captions)
    log.info("%s: %s, cutoff %.4g", printable(file), projection, projection.cutoff)
    return projection


def missing(name: object) -> ImageToPromptError:
    """The error for a file that is in none of the model folders."""
    return ImageToPromptError(
        f"a {files.SUFFIX} file in the model folders {', '.join(files.SEARCHED)}",
        f"{quoted(name)}, which is not there",
        "Place openai/clip-vit-large-patch14's model.safetensors in one of them, and refresh.",
    )


def readable_path(name: str) -> str:
    """The first file of this name that promises a projection, or the first one at all.

    A vision-only and a full CLIP file often share a name in two folders; their headers tell them
    apart.
    """
    paths = files.paths_of(name)
    if not paths:
        raise missing(name)
    if len(paths) == 1:
        return paths[0]
    return next((path for path in paths if promises_projection(path)), paths[0])
