"""ImageToPromptEmbed: pictures, and a text if wanted, to CONDITIONING.

The host gives every input as a list, so that "one prompt from all" sees the pictures of a folder
loader. Otherwise lists give what they give to a node that takes none: see `lists`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..projection import BLENDS, Projection, shared_slots, weighted, weighted_mean
from ..projection.prompt.travel import check_frames, travel
from .families.embed import combined, family_embeds, family_prompt
from .host import api as host
from .host.api import io
from .host.vision import image_embeddings
from .inputs.advice import with_advice
from .inputs.checks import (
    check_choice,
    check_number,
    check_text,
    parse_weights,
    rgb,
)
from .inputs.embed_inputs import (
    CROPS,
    FROM_ALL,
    IMAGES,
    MASK_USES,
    PAD_RULES,
    SLOTS,
    TRAVEL,
    WHOLE,
    embed_inputs,
)
from .inputs.frames import by_row, parse_frames
from .inputs.lists import as_list, mapped
from .inputs.masks import masked, masks_for
from .prompts.entries import entries_of, prompt_of
from .prompts.pairing import check_models
from .prompts.rows import entries
from .types import CATEGORY


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
        mask: Any = None,
        mask_use: Any = MASK_USES[0],
        frames: Any = "",
    ) -> io.NodeOutput:
        """A list of CONDITIONING from lists of inputs, as the host gives them.

        A program that calls with single values gets a single CONDITIONING.
        """
        inputs = {name: value for name, value in locals().items() if name != "cls"}
        if not isinstance(images, list):
            item = {name: [value] for name, value in inputs.items() if name in BY_ITEM}
            return io.NodeOutput(_prompt(**{**inputs, **item}))
        lists = {name: as_list(value, name) for name, value in inputs.items()}
        return io.NodeOutput([_prompt(**item) for item in _items(lists)])


BY_ITEM = ("image", "mask", "text_weight", "strength")


def _items(lists: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The inputs of each CONDITIONING; those of BY_ITEM are lists of what it is made from.

    What an option of `images` takes as a whole list counts as one item.
    """
    options = [WHOLE.get(mode, ()) if isinstance(mode, str) else () for mode in lists["images"]]
    in_all = set(options[0]).intersection(*options)
    alone = {name: values for name, values in lists.items() if name not in in_all}
    for item in mapped({**alone, "whole": options}):
        whole = item.pop("whole")
        made_from = {name: lists[name] if name in whole else [item[name]] for name in BY_ITEM}
        yield {**item, **made_from}


def _prompt(
    projection: Projection,
    clip: Any,
    clip_vision: Any,
    image: Sequence[Tensor],
    text: str,
    text_weight: Sequence[float],
    strength: Sequence[float],
    images: str,
    crop: str,
    blend: str,
    image_weights: str,
    pads: str,
    mask: Sequence[Tensor | None],
    mask_use: str,
    frames: str,
) -> list:
    """One CONDITIONING of pictures and batches whose sizes may differ."""
    check_choice(crop, CROPS, "crop")
    check_choice(blend, BLENDS, "blend")
    mode = check_choice(images, IMAGES, "images")
    rows = [("text_weight", text_weight), ("strength", strength)]
    for name, values in rows:
        for value in values:
            check_number(value, name)
    check_text(text, "text")
    check_choice(pads, PAD_RULES, "pads")
    readings = check_models(projection, clip, clip_vision).readings
    pictures = [picture for batch in image for picture in rgb(batch, crop).split(1)]
    keys = parse_frames(frames, len(pictures)) if mode == TRAVEL else []
    if mode == TRAVEL:
        check_frames(keys, len(pictures))
        rows = [(name, by_row(values, keys[-1] + 1, name)) for name, values in rows]
    weights = parse_weights(image_weights) if mode in FROM_ALL else None

    parts, masks = masked(pictures, masks_for(mask, pictures), mask_use)
    factors = list(zip(*(values for _, values in rows), strict=True))
    if readings is not None:
        embeds = family_embeds(projection, clip_vision, parts, crop, masks)
        made, slots = combined(mode, readings, embeds, weights, keys, factors)
        return family_prompt(readings, clip, made, text, factors, blend, pads, slots)
    found = image_embeddings(clip_vision, parts, crop, projection.vision, masks)
    embeddings = torch.cat([projection.apply(v) for v in found])
    if mode == SLOTS:
        sharing, shares = weighted(embeddings, weights, projection.common)
        prompt = prompt_of(projection, sharing, shared_slots(shares))
        return entries_of(prompt, clip, text, text_weight[0], strength[0], blend)
    if mode == IMAGES[1]:
        embeddings = weighted_mean(embeddings, weights, projection.common)
    if mode == TRAVEL:
        embeddings = travel(embeddings, keys, projection.common)
    return entries(projection, clip, text, embeddings, factors, blend)


NODES = [ImageToPromptEmbed]
