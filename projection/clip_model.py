"""The whole method on a `transformers` CLIPModel, for use without ComfyUI.

    projection = from_clip_model(clip)
    embeds = prompt_embeds(clip, tokenizer, projection, pixel_values, "in the snow")
    pipeline(prompt_embeds=embeds, negative_prompt_embeds=null_prompt(clip, tokenizer))

Objects are taken as they come (transformers is not imported), so any model with the same parts
will do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ImageToPromptError
from .projector import Projection
from .prompt import CHUNK, PAPER_TEXT_WEIGHT, apply_strength, condition, first_eos


def from_clip_model(clip: Any, method: str = "pseudo-inverse", cutoff: float = 0.0) -> Projection:
    """The closed form of a loaded CLIPModel; see `Projection.from_text_projection`."""
    return Projection.from_text_projection(
        clip.text_projection.weight, clip.visual_projection.weight, method, cutoff
    )


@torch.no_grad()
def image_embeds(clip: Any, pixel_values: Tensor) -> Tensor:
    """Image embeddings (B, J), joint CLIP space, not normalised, of preprocessed pictures."""
    pooled = clip.vision_model(pixel_values=pixel_values).pooler_output  # post-LayerNorm CLS
    return clip.visual_projection(pooled)


@torch.no_grad()
def text_states(clip: Any, tokenizer: Any, text: str) -> tuple[Tensor, int]:
    """Last-layer states (1, 77, D) of one text, and the position of its first EOS.

    Raises ImageToPromptError if the text does not fit into one chunk of 77 tokens.
    """
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > CHUNK:
        raise ImageToPromptError(
            f"a text of at most {CHUNK} tokens", f"{len(ids)}", "Shorten it, or use the nodes."
        )
    eos = first_eos(ids, ids[-1])
    padded = ids + [ids[-1]] * (CHUNK - len(ids))  # SD 1.x pads with EOS
    tokens = torch.tensor([padded], device=clip.text_projection.weight.device)
    return clip.text_model(input_ids=tokens).last_hidden_state, eos


def null_prompt(clip: Any, tokenizer: Any) -> Tensor:
    """The encoded empty prompt (1, 77, D): what a pipeline takes as the unconditional side."""
    return text_states(clip, tokenizer, "")[0]


def prompt_embeds(
    clip: Any,
    tokenizer: Any,
    projection: Projection,
    pixel_values: Tensor,
    text: str = "",
    text_weight: float = PAPER_TEXT_WEIGHT,
    strength: float = 1.0,
) -> Tensor:
    """Conditioning (B, 77, D), one prompt per picture, that a diffusers pipeline takes.

    pixel_values: (B, 3, H, W) as the model's image processor gives them.
    """
    states, eos = text_states(clip, tokenizer, text)
    embeddings = projection.apply(image_embeds(clip, pixel_values)).to(states)
    conditioning = condition(states, [eos], embeddings, text_weight)
    return apply_strength(conditioning, null_prompt(clip, tokenizer), strength)
