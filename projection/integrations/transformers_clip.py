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

from ..errors import ImageToPromptError
from ..projector import Projection
from ..prompt.conditioning import CHUNK, PAPER_TEXT_WEIGHT, apply_strength, condition, first_eos


def from_clip_model(clip: Any, method: str = "pseudo-inverse", cutoff: float = 0.0) -> Projection:
    """The closed form of a loaded CLIPModel; see `Projection.from_text_projection`."""
    return Projection.from_text_projection(
        clip.text_projection.weight, clip.visual_projection.weight, method, cutoff
    )


@torch.no_grad()
def image_embeds(clip: Any, pixel_values: Tensor) -> Tensor:
    """Image embeddings (B, J), joint CLIP space, not normalised, of preprocessed images."""
    pooled = clip.vision_model(pixel_values=pixel_values).pooler_output  # post-LayerNorm CLS
    return clip.visual_projection(pooled)


@torch.no_grad()
def text_states(clip: Any, tokenizer: Any, text: str) -> tuple[Tensor, int]:
    """Last-layer states (1, 77, D) of one text, and the position of its first EOS.

    Raises ImageToPromptError if the text does not fit into one chunk of 77 tokens.
    """
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > CHUNK:
        raise ImageToPromptError(f"a text of at most {CHUNK} tokens", f"{len(ids)}", "Shorten it.")
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
    conditioning = condition(states, [eos], embeddings, text_weight, centred=projection.centred)
    return apply_strength(conditioning, null_prompt(clip, tokenizer), strength)


class TransformersTower:
    """The vision encoder of a CLIPModel in parts, see `deep_prompts.VisionTower`."""

    def __init__(self, clip: Any) -> None:
        self._clip, self._vision = clip, clip.vision_model
        self.layers = list(self._vision.encoder.layers)
        self.heads = self._vision.config.num_attention_heads
        self.width = self._vision.config.hidden_size

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens (B, N, V) that enter layer 0, from preprocessed images (B, 3, S, S)."""
        # The misspelt name is the library's.
        return self._vision.pre_layrnorm(self._vision.embeddings(pixels))

    def self_attention(self, index: int, normed: Tensor) -> Tensor:
        """Self-attention (B, N, V) of layer `index`."""
        return self.layers[index].self_attn(normed)[0]

    def mlp(self, index: int, hidden: Tensor) -> Tensor:
        """LayerNorm 2 and MLP (B, N, V) of layer `index`, without the residual."""
        layer = self.layers[index]
        return layer.mlp(layer.layer_norm2(hidden))

    def project(self, hidden: Tensor) -> Tensor:
        """Image embeddings (B, J), joint CLIP space."""
        return self._clip.visual_projection(self._vision.post_layernorm(hidden[:, 0]))
