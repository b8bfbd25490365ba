"""The narrow CLIP as a file of ViT-L/14's shape: 12 text and 24 vision layers, widths x 8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..drawings.models import CLIP_IDS
from .layers import State, embedding, layer, outputs

K = 8
VOCABULARY = 49408
DEPTHS = {"text_model": 12, "vision_model": 24}


def widen_clip(narrow: State, ids: Sequence[int] = CLIP_IDS) -> State:
    """State dict under transformers' key names; `narrow` is that of the narrow CLIPModel.

    ids: CLIP's ids of the rows of the narrow token table.
    """
    wide = {name: _widen(name, value, ids) for name, value in narrow.items()}
    for tower, depth in DEPTHS.items():
        wide |= idle_layers(wide, tower, depth)
    return wide


def _widen(name: str, value: Tensor, ids: Sequence[int]) -> Tensor:
    if name == "logit_scale":
        return value
    if name.endswith("token_embedding.weight"):
        return embedding(token_table(value, ids), K)
    if name.endswith(("position_embedding.weight", "class_embedding")):
        return embedding(value, K)
    if name.endswith("patch_embedding.weight"):
        return outputs(value, K)  # its inputs are the picture's three channels
    return layer(name, value, K)


def token_table(rows: Tensor, ids: Sequence[int] = CLIP_IDS) -> Tensor:
    """All 49408 rows: words this world does not know get the mean of those it knows."""
    table = rows.mean(dim=0, keepdim=True).repeat(VOCABULARY, 1)
    table[torch.tensor(ids)] = rows
    return table


def idle_layers(wide: State, tower: str, depth: int) -> State:
    """The layers that ViT-L/14 has beyond the trained ones: they add zero to the residual."""
    first = f"{tower}.encoder.layers.0."
    template = {name[len(first) :]: v for name, v in wide.items() if name.startswith(first)}
    trained = sum(name.endswith("layer_norm1.bias") for name in wide if name.startswith(tower))
    state = {}
    for index in range(trained, depth):
        for name, value in template.items():
            is_norm = name.startswith("layer_norm") and name.endswith("weight")
            fill = torch.ones_like(value) if is_norm else torch.zeros_like(value)
            state[f"{tower}.encoder.layers.{index}.{name}"] = fill
    return state
