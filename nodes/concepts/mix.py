"""ImageToPromptMix: pictures and a concept to CONDITIONING."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...projection import (
    BLENDS,
    CONCEPTS,
    Concept,
    ImageToPromptError,
    Projection,
    only,
    swap,
    text_projection_of,
    visual_direction,
    without,
    words_of,
)
from ..families.concepts import words_in_joint_space
from ..families.embed import each_alone, family_prompt
from ..host import api as host
from ..host.api import io
from ..host.text import eos_states
from ..host.vision import image_embeddings
from ..inputs.advice import with_advice
from ..inputs.checks import check_choice, check_number, check_share, check_text, rgb
from ..inputs.embed_inputs import CROPS, PAD_RULES
from ..prompts.entries import entries_of, prompt_of
from ..prompts.pairing import check_models
from ..types import CATEGORY
from .inputs import CHOICES, FROM_B, MODES, ONLY, OWN_WORDS, mix_inputs

log = logging.getLogger(__name__)


class ImageToPromptMix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["style transfer", "mix images", "style reference", "image prompt"],
            node_id="ImageToPromptMix",
            display_name="Image To Prompt Mix",
            category=CATEGORY,
            description=(
                "Takes only the style, the colours, the place, the subject, or what your own "
                "words name, from a picture: into another picture's prompt, alone, or left out. "
                "Plain CONDITIONING for SD 1.x, SD 2.x or SDXL, without training."
            ),
            inputs=mix_inputs(),
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip=(
                        "The mixed prompt, one row for each picture of image_a: connect it to a "
                        "KSampler's positive or negative."
                    ),
                )
            ],
        )

    @classmethod
    @with_advice
    def execute(
        cls,
        projection: Projection,
        clip: Any,
        clip_vision: Any,
        image_a: Tensor,
        mode: str,
        concept: str,
        amount: float,
        text: str,
        text_weight: float,
        strength: float,
        crop: str,
        blend: str = "add",
        image_b: Tensor | None = None,
        words: str = "",
    ) -> io.NodeOutput:
        check_choice(mode, MODES, "mode")
        check_choice(concept, CHOICES, "concept")
        check_choice(crop, CROPS, "crop")
        check_choice(blend, BLENDS, "blend")
        check_number(text_weight, "text_weight")
        check_number(strength, "strength")
        check_text(text, "text")
        check_share(amount, "amount")
        readings = check_models(projection, clip, clip_vision).readings
        listed = _words(concept, words)
        pictures = _pictures(image_a, image_b if mode == FROM_B else None, mode, crop)

        embeds = [_embeds(projection, clip_vision, batch, crop) for batch in pictures]
        if amount > 0:
            part = _concept(projection, clip, listed)
            embeds = [_mixed(projection, clip_vision, embeds, part, mode, amount)]
        if readings is not None:
            factors, pads = [(text_weight, strength)], PAD_RULES[0]
            unit = normalize(projection.corrected(embeds[0]).float(), dim=-1)
            states = each_alone(readings, unit, factors)
            return io.NodeOutput(family_prompt(readings, clip, states, text, factors, blend, pads))
        # One by one, as Image To Prompt Embed does: a batch differs in the last bits.
        found = torch.cat([projection.apply(v) for v in embeds[0].split(1)])
        prompt = prompt_of(projection, found)
        return io.NodeOutput(entries_of(prompt, clip, text, text_weight, strength, blend))


def _words(concept: str, words: str) -> tuple[str, ...]:
    return words_of(check_text(words, "words")) if concept == OWN_WORDS else CONCEPTS[concept]


def _pictures(image_a: Any, image_b: Any, mode: str, crop: str) -> list[Tensor]:
    """One or two batches (B, H, W, 3). Raises ImageToPromptError where they do not fit."""
    first = rgb(image_a, crop, "image_a")
    if mode != FROM_B:
        return [first]
    if image_b is None:
        raise ImageToPromptError(
            f"a second picture for mode '{FROM_B}'",
            "none",
            "Connect a picture to socket image_b, or choose another mode.",
        )
    second = rgb(image_b, crop, "image_b")
    if len(second) not in (1, len(first)):
        raise ImageToPromptError(
            f"1 or {len(first)} pictures on socket image_b, as on image_a",
            f"{len(second)}",
            "Connect batches of one size (sockets image_a, image_b).",
        )
    return [first, second]


def _embeds(projection: Projection, clip_vision: Any, pictures: Tensor, crop: str) -> Tensor:
    """Image embeddings (B, J), joint CLIP space, not normalised."""
    found = image_embeddings(clip_vision, pictures.split(1), crop, projection.vision)
    return torch.cat(list(found))


def _concept(projection: Projection, clip: Any, words: tuple[str, ...]) -> Concept:
    if projection.readings is None:
        weight = text_projection_of(projection)
        embeds = eos_states(clip, words) @ weight.T  # (N, D) @ (D, J)
    else:
        embeds = words_in_joint_space(projection, projection.readings, clip, words)
    found = Concept.of(embeds)
    log.info("%d words, %d directions of the concept", len(words), found.rank)
    return found


def _mixed(
    projection: Projection,
    clip_vision: Any,
    embeds: list[Tensor],
    concept: Concept,
    mode: str,
    amount: float,
) -> Tensor:
    if mode == FROM_B:
        return swap(embeds[0], embeds[1], concept, amount)
    change = only if mode == ONLY else without
    readings = projection.readings
    if readings is not None:
        return change(embeds[0], concept, amount, readings.direction, readings.centre)
    if projection.centred is not None:
        direction = projection.centred.direction
    else:
        encoder = projection.encoder
        weight = host.check_clip_vision(clip_vision, encoder.joint_width, encoder.name)
        direction = visual_direction(weight.float()).float()
    return change(embeds[0], concept, amount, direction)


NODES = [ImageToPromptMix]
