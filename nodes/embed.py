"""ImageToPromptEmbed: pictures, and a text if wanted, to CONDITIONING.

The host gives every input as a list, so that "one prompt from all" sees the pictures of a folder
loader. Otherwise lists give what they give to a node that takes none: see `lists`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..projection import (
    BLENDS,
    Centred,
    ImageToPromptError,
    Projection,
    apply_strength,
    condition,
    has_words,
    spherical_mean,
)
from ..projection.closed_form.clip_identity import fingerprint
from .families.embed import family_prompt
from .host import api as host
from .host.api import io
from .host.vision import image_embeddings
from .inputs.advice import with_advice
from .inputs.checks import (
    check_choice,
    check_number,
    check_projection,
    check_socket,
    check_text,
    parse_weights,
    rgb,
)
from .inputs.embed_inputs import CROPS, IMAGES, PAD_RULES, embed_inputs
from .inputs.lists import as_list, mapped
from .types import CATEGORY

log = logging.getLogger(__name__)


class ImageToPromptEmbed(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["image prompt", "image variation", "reference image", "sd-ipc"],
            node_id="ImageToPromptEmbed",
            display_name="Image To Prompt Embed",
            category=CATEGORY,
            description=(
                "Turns a picture into a prompt for SD 1.x, SD 2.x or SDXL, as plain CONDITIONING, "
                "with no training and no adapter. Add a text to steer it. Use it as positive or "
                "negative, and with core's Conditioning nodes (combine, area, mask, timestep)."
            ),
            is_input_list=True,  # the folder loader gives a list, for sizes may differ
            inputs=embed_inputs(),
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    is_output_list=True,
                    tooltip=(
                        "The picture as a prompt, in the shape that CLIP Text Encode gives: "
                        "connect it to a KSampler's positive or negative."
                    ),
                )
            ],
        )

    @classmethod
    @with_advice
    def execute(
        cls,
        projection: Any,
        clip: Any,
        clip_vision: Any,
        image: Any,
        text: Any,
        text_weight: Any,
        strength: Any,
        images: Any,
        crop: Any,
        blend: Any = "add",
        image_weights: Any = "",
        pads: Any = "picture",
    ) -> io.NodeOutput:
        """A list of CONDITIONING from lists of inputs, as the host gives them.

        A program that calls with single values gets a single CONDITIONING.
        """
        inputs = {name: value for name, value in locals().items() if name != "cls"}
        if not isinstance(images, list):
            return io.NodeOutput(_prompt(**{**inputs, "image": [image]}))
        lists = {name: as_list(value, name) for name, value in inputs.items()}
        return io.NodeOutput([_prompt(**item) for item in _items(lists)])


def _items(lists: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The inputs of each CONDITIONING; `image` are the pictures and batches that it is made from.

    "one prompt from all" takes the whole list of pictures, which then counts as one item.
    """
    alone = {name: values for name, values in lists.items() if name != "image"}
    from_all = [isinstance(value, str) and value == IMAGES[1] for value in lists["images"]]
    for item in mapped({**(alone if all(from_all) else lists), "whole": from_all}):
        whole = item.pop("whole")
        yield {**item, "image": lists["image"] if whole else [item["image"]]}


def _prompt(
    projection: Projection,
    clip: Any,
    clip_vision: Any,
    image: Sequence[Tensor],
    text: str,
    text_weight: float,
    strength: float,
    images: str,
    crop: str,
    blend: str,
    image_weights: str,
    pads: str,
) -> list:
    """One CONDITIONING of pictures and batches whose sizes may differ."""
    check_choice(crop, CROPS, "crop")
    check_choice(blend, BLENDS, "blend")
    from_all = check_choice(images, IMAGES, "images") == IMAGES[1]
    check_number(text_weight, "text_weight")
    check_number(strength, "strength")
    check_text(text, "text")
    check_choice(pads, PAD_RULES, "pads")
    readings = check_projection(projection).readings
    if readings is None:
        _check_pairing(projection, clip, clip_vision)
    pictures = [picture for batch in image for picture in rgb(batch, crop).split(1)]
    weights = parse_weights(image_weights) if from_all else None
    if readings is not None:
        sources = (projection, readings, clip, clip_vision, pictures, weights, from_all, crop)
        return family_prompt(*sources, text, strength, text_weight, blend, pads)

    found = image_embeddings(clip_vision, pictures, crop, projection.vision)
    embeddings = torch.cat([projection.apply(v) for v in found])
    if from_all:
        embeddings = spherical_mean(embeddings, weights, projection.common)
    encoded = host.encode_text(clip, text)
    null = _null_prompt(clip, encoded, strength)
    shared = (encoded.eos, embeddings, text_weight, blend, strength, projection.centred)
    return [
        _entry(states, extras, n, *shared)
        for (states, extras), (n, _) in zip(encoded.entries, null.entries, strict=True)
    ]


def _check_pairing(projection: Projection, clip: Any, clip_vision: Any) -> None:
    encoder = projection.encoder
    check_socket(clip, "clip")
    host.check_clip(clip, encoder.text_width, encoder.name)
    visual = host.check_clip_vision(clip_vision, encoder.joint_width, encoder.name)
    if encoder.visual_projection not in (None, fingerprint(visual)):
        log.warning(
            "clip_vision is not the vision encoder of the projection's CLIP, though as wide; "
            "prompts may be off. Load both from one file."
        )


def _null_prompt(clip: Any, encoded: host.EncodedText, strength: float) -> host.EncodedText:
    """The encoded empty prompt, without encoding twice where it is known or not needed."""
    if strength == 1 or not has_words(encoded.eos):
        return encoded
    return host.encode_text(clip, "")


def _entry(
    states: Tensor,
    extras: dict[str, Any],
    null: Tensor,
    eos: list[int],
    embeddings: Tensor,
    text_weight: float,
    blend: str,
    strength: float,
    centred: Centred | None,
) -> list:
    conditioning = condition(states, eos, embeddings.to(states), text_weight, blend, centred)
    conditioning = apply_strength(conditioning, null, strength)
    if not torch.isfinite(conditioning).all():
        raise ImageToPromptError(
            "a conditioning of finite numbers",
            f"infinite or NaN ones for text_weight {text_weight} and strength {strength}",
            "Lower text_weight and strength, and check the text encoder for NaN (socket clip).",
        )
    # As core has it for SD 1.x: the state at the first EOS. The U-Net does not read it.
    return [conditioning, {**extras, "pooled_output": conditioning[:, eos[0]]}]


NODES = [ImageToPromptEmbed]
