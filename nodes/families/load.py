"""What Load Projection makes for the text encoders of SD 2.x, SDXL or its refiner.

From captions alone: nothing is sampled and nothing is trained. A saved projection that has its
readings encodes nothing again; pictures give it another centre.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...projection import (
    ClipProjections,
    Family,
    ImageToPromptError,
    Projection,
    Readings,
    broad_captions,
    fit_readings,
    text_projection_of,
    visual_direction,
    vocabulary_words,
)
from ...projection.families.least_squares import MIN_CAPTIONS
from ..host import api as host
from ..host.families.captions import caption_states
from ..host.families.clip import check_family, encoder_of, family_of, layer_of
from ..host.families.vocabulary import vocabulary
from ..host.vision import image_embeddings
from ..inputs.checks import check_count, check_socket
from ..inputs.corpus import CROP, caption_lines, given_pictures

log = logging.getLogger(__name__)

CORPUS_SIZE, MAX_CORPUS = 4000, 20_000
_VISION = {
    768: "clip-vit-large-patch14",
    1024: "CLIP-ViT-H-14",
    1280: "clip_vision_g",
}


@dataclass(frozen=True, eq=False)
class Source:
    """The CLIP whose image embeddings the readings start from.

    part: key of the family's text encoder that gives the captions' joint embeddings. weight: W_t
    (J, D), None for the encoder's own. visual: W_v (J, V).
    """

    projection: Projection
    part: str
    weight: Tensor | None
    visual: Tensor


def other_family(clip: Any) -> Family | None:
    """The family of a CLIP that is not SD 1.x's; None for SD 1.x, no CLIP, or no CLIP at all."""
    if not all(hasattr(clip, name) for name in ("tokenize", "cond_stage_model")):
        return None
    if set(clip.tokenize("")) == {"l"}:  # of any width, which is checked where it is used
        return None
    return family_of(clip)


def with_readings(
    projection: Projection,
    weights: ClipProjections | None,
    family: Family,
    clip: Any,
    clip_vision: Any,
    image: Any,
    captions: str,
    corpus_size: int,
) -> Projection:
    """The projection for this family, made by the loaded checkpoint's own text encoders.

    weights: W_t and W_v of the CLIP file, None for a saved projection. image: None, a batch of
    pictures (B, H, W, C), or a list of batches of any sizes. Raises ImageToPromptError for what
    does not belong together, before any model runs.
    """
    if projection.readings is not None:
        check_family(clip, projection.readings.family, projection.readings.layer)
        return recentred(projection, clip_vision, image)
    check_socket(clip_vision, "clip_vision")
    layer = layer_of(clip, family)
    texts = _corpus(clip, captions, corpus_size)
    pictures = given_pictures(image, clip_vision)
    source = _source(projection, weights, family, clip, clip_vision)
    identity = source.projection.encoder
    if clip_vision is not None:
        host.check_clip_vision(clip_vision, identity.joint_width, identity.name)
    joint, states = caption_states(clip, family, layer, texts, source.part, source.weight)
    readings = fit_readings(family, joint, states, layer=layer)
    for name, reading in readings.readings.items():
        log.info("%s: R2 %.3f, cosine %.3f held out", name, reading.r_squared, reading.cosine)
    readings = readings.with_direction(visual_direction(source.visual))
    if source.projection.residual is not None:
        log.warning("the residual that was trained for SD 1.x is left out for %s", family.name)
    made = source.projection.with_readings(readings)
    return made if pictures is None else _centred(made, clip_vision, pictures)


def recentred(projection: Projection, clip_vision: Any, image: Any) -> Projection:
    """A projection with readings with the centre of these pictures; without any as it is."""
    pictures = given_pictures(image, clip_vision)
    return projection if pictures is None else _centred(projection, clip_vision, pictures)


def _centred(projection: Projection, clip_vision: Any, pictures: list[Tensor]) -> Projection:
    identity, readings = projection.encoder, projection.readings
    check_socket(clip_vision, "clip_vision")
    host.check_clip_vision(clip_vision, identity.joint_width, identity.name)
    if readings is None or len(pictures) < 2:
        log.warning("one picture (socket image) has no mean and is not used")
        return projection
    found = torch.cat(list(image_embeddings(clip_vision, pictures, CROP, projection.vision)))
    centred: Readings = readings.with_pictures(found.float())
    return projection.with_readings(centred)


def _corpus(clip: Any, captions: str, corpus_size: int) -> list[str]:
    """The user's captions, and built-in ones with words of the tokenizer's vocabulary."""
    own = list(dict.fromkeys(caption_lines(captions)))
    size = check_count(corpus_size, "corpus_size", 0)
    if size > MAX_CORPUS or len(own) + size < MIN_CAPTIONS:
        raise ImageToPromptError(
            f"{MIN_CAPTIONS} captions or more, of which at most {MAX_CORPUS} built-in ones",
            f"{len(own)} on captions and corpus_size {size}",
            "Correct corpus_size, or give more captions, one a line.",
        )
    built_in = broad_captions(size, words=vocabulary_words(vocabulary(clip))) if size else []
    return [*own, *built_in]


def _source(
    projection: Projection,
    weights: ClipProjections | None,
    family: Family,
    clip: Any,
    clip_vision: Any,
) -> Source:
    """The file's CLIP where the family reads its text encoder, else an encoder's own projection."""
    identity = projection.encoder
    visual = getattr(getattr(clip_vision, "model", None), "visual_projection", None)
    given = getattr(visual, "weight", None)
    joint = identity.joint_width if given is None else given.shape[0]
    widths = {part.width: part.key for part in family.parts}
    if joint == identity.joint_width and identity.text_width in widths:
        text = text_projection_of(projection) if weights is None else weights.text
        own = None if weights is None else weights.visual
        return Source(projection, widths[identity.text_width], text, _visual(own, given))
    if given is None or joint not in widths:
        names = " or ".join(f"{_VISION.get(width, width)}" for width in widths)
        got = identity.name if given is None else f"a vision model of joint width {joint}"
        raise ImageToPromptError(
            f"the CLIP of one of {family.name}'s text encoders ({names})",
            got,
            f"Load {names} with Load CLIP Vision (socket clip_vision), or choose the full CLIP "
            "file (file).",
        )
    return _own_source(clip, widths[joint], given.detach().cpu().float())


def _own_source(clip: Any, key: str, visual: Tensor) -> Source:
    """The text encoder's own projection, as the checkpoint holds it."""
    clip.load_model()
    weight = encoder_of(clip, key).transformer.text_projection.weight.detach().cpu().float()
    try:
        projection = Projection.from_text_projection(weight, visual)
    except ImageToPromptError as error:
        raise ImageToPromptError(
            error.expected,
            f"{error.got} of text encoder {key}",
            "Connect the CLIP of a checkpoint whose text encoder has its text projection "
            "(socket clip).",
        ) from error
    return Source(projection, key, None, visual)


def _visual(own: Tensor | None, given: Tensor | None) -> Tensor:
    """W_v (J, V), float32, from the file or else from the vision model."""
    if own is None and given is None:
        raise ImageToPromptError(
            "a CLIP's visual projection",
            "a file without one",
            "Load the full CLIP file (file), or connect Load CLIP Vision (socket clip_vision).",
        )
    weight = own if own is not None else given
    return torch.as_tensor(weight).detach().cpu().float()
