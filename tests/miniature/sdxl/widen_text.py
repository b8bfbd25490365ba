"""The two narrow text encoders at SDXL's shapes, under the key names of its checkpoints.

SDXL reads the states before the last layer. The last trained layer is therefore put at the last
index, and the idle layers, which add nothing, before it.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..drawings.models import CLIP_IDS
from ..widening.layers import State, embedding, inputs, layer, outputs
from .heads import idle, into_heads, out_of_heads
from .models import OPEN_IDS

K_L, K_G = 8, 20
L_DEPTH, G_DEPTH = 12, 32
VOCABULARY = 49408
NORM = r"^(layer_norm|ln_)\d\.weight$"  # in either naming

OPEN_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def place(index: int, trained: int, depth: int) -> int:
    """Where a trained layer goes: the last one last, the others first."""
    return depth - 1 if index == trained - 1 else index


def token_table(rows: Tensor, ids: list[int], k: int) -> Tensor:
    """All 49408 rows, (49408, k D): unknown words get the mean of the known ones."""
    table = rows.mean(dim=0, keepdim=True).repeat(VOCABULARY, 1)
    table[torch.tensor(ids)] = rows
    return embedding(table, k).half()  # exact: rows were kept in half precision


def split(narrow: State) -> tuple[State, list[State]]:
    """The part outside the layers, and each layer's, names without their prefixes."""
    outside, layers = {}, {}
    for name, value in narrow.items():
        name = name.removeprefix("text_model.")
        if not name.startswith("encoder.layers."):
            outside[name] = value
            continue
        index, rest = name.removeprefix("encoder.layers.").split(".", 1)
        layers.setdefault(int(index), {})[rest] = value
    return outside, [layers[index] for index in sorted(layers)]


def stacked(trained: list[State], depth: int) -> dict[int, State]:
    """`depth` wide layers by index, idle ones between the trained."""
    known = {place(i, len(trained), depth): state for i, state in enumerate(trained)}
    first = trained[0].items()
    blank = {n: idle(v.shape, ones=re.search(NORM, n) is not None) for n, v in first}
    return {index: known.get(index, blank) for index in range(depth)}


def widen_l(narrow: State) -> State:
    """The drawings' text encoder as SDXL's first; its projection is not part of SDXL's file."""
    outside, layers = split({n: v for n, v in narrow.items() if n.startswith("text_model.")})
    wide = {
        "embeddings.token_embedding.weight": token_table(
            outside["embeddings.token_embedding.weight"], CLIP_IDS, K_L
        ),
        "embeddings.position_embedding.weight": embedding(
            outside["embeddings.position_embedding.weight"], K_L
        ),
        "final_layer_norm.weight": outputs(outside["final_layer_norm.weight"], K_L),
        "final_layer_norm.bias": outputs(outside["final_layer_norm.bias"], K_L),
    }
    trained = [{name: layer(name, value, K_L) for name, value in part.items()} for part in layers]
    for index, part in stacked(trained, L_DEPTH).items():
        wide |= {f"encoder.layers.{index}.{name}": value for name, value in part.items()}
    return {f"transformer.text_model.{name}": value for name, value in wide.items()}


def widen_g(narrow: State) -> State:
    """The open CLIP as SDXL's second text encoder, under OpenCLIP's names."""
    outside, layers = split(narrow)
    projection = inputs(outputs(outside["text_projection.weight"], K_G), K_G)
    wide = {
        "token_embedding.weight": token_table(
            outside["embeddings.token_embedding.weight"], OPEN_IDS, K_G
        ),
        "positional_embedding": embedding(outside["embeddings.position_embedding.weight"], K_G),
        "ln_final.weight": outputs(outside["final_layer_norm.weight"], K_G),
        "ln_final.bias": outputs(outside["final_layer_norm.bias"], K_G),
        "text_projection": projection.T,
    }
    for index, part in stacked([open_layer(state) for state in layers], G_DEPTH).items():
        prefix = f"transformer.resblocks.{index}."
        wide |= {prefix + name: value for name, value in part.items()}
    return {f"model.{name}": value for name, value in wide.items()}


def open_layer(narrow: State) -> State:
    """One layer of G, wide, with queries, keys and values in one map as OpenCLIP has them."""
    wide = {}
    for leaf in ("weight", "bias"):
        maps = [
            into_heads(
                narrow[f"self_attn.{which}_proj.{leaf}"], K_G,
                K_G if leaf == "weight" else None, query=which == "q",
            )
            for which in "qkv"
        ]  # fmt: skip
        wide[f"attn.in_proj_{leaf}"] = torch.cat(maps)
        for ours, theirs in OPEN_NAMES.items():
            wide[f"{theirs}.{leaf}"] = _open_leaf(f"{ours}.{leaf}", narrow[f"{ours}.{leaf}"])
    return wide


def _open_leaf(name: str, value: Tensor) -> Tensor:
    if name == "self_attn.out_proj.weight":
        return out_of_heads(value, K_G)
    return layer(name, value, K_G)
