"""The narrow U-Net at SDXL's widths and depths, under the key names of its checkpoints.

The host calls SDXL what has 320 channels, linear projections, text states 2048 wide, 2816 numbers
of pooled text and sizes, and transformers of depth 0, 0, 2, 2, 10, 10 in the encoder. Here these
six blocks are five at 320 channels and one at 640. What is not trained is idle: a residual block
whose second convolution is zero, a transformer block whose outputs are zero, a block of the decoder
that passes its input on. The trained transformer blocks are the last of their stacks.

    block   in.0  in.1 in.2  in.3      in.4 in.5  in.6  in.7       middle
    narrow  conv  idle idle  down_0    idle idle  down  down_1     mid
    depth         0    0     2         2    10          10         1
    block   out.0     out.1          out.2     out.3 .. out.6  out.7
    narrow  up_0.0    up_0.1, up     up_1.0    idle            up_1.1
    skip of in.7      in.6           in.5      in.4 .. in.1    in.0
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..widening.layers import State, inputs, layer, outputs
from ..widening.widen_unet import RESNET
from .heads import idle, into_heads, out_of_heads
from .models import G_WIDTH, L_WIDTH
from .widen_text import K_G, K_L

K = 5
WIDTH = 320
DEPTHS = {"input_blocks.3": 2, "input_blocks.4": 2, "input_blocks.5": 10, "input_blocks.7": 10}
TRAINED = ("input_blocks.3", "input_blocks.7")
IDLE_INPUTS, IDLE_OUTPUTS = (1, 2, 4, 5), (3, 4, 5, 6)
BLOCKS = {
    "down_blocks.0": ("input_blocks.3",),
    "down_blocks.1": ("input_blocks.7",),
    "up_blocks.0": ("output_blocks.0", "output_blocks.1"),
    "up_blocks.1": ("output_blocks.2", "output_blocks.7"),
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.6.0.op",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
}


def widen_unet(narrow: State) -> State:
    """State dict of the host's U-Net (no prefix) from diffusers' narrow one."""
    wide = {host_name(name): _widen(name, value) for name, value in narrow.items()}
    wide |= idle_transformers(wide)
    for index in IDLE_INPUTS:
        wide |= idle_residual(wide, f"input_blocks.{index}.0", WIDTH)
    for index in IDLE_OUTPUTS:
        wide |= idle_residual(wide, f"output_blocks.{index}.0", 2 * WIDTH)
    return wide


def host_name(name: str) -> str:
    """The checkpoint's name of a diffusers parameter."""
    for ours, theirs in ENDS.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match.groups()
        block = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}"
    elif match := re.match(r"(\w+\.\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        part, kind, index, rest = match.groups()
        host = BLOCKS[part][int(index)]
        block = f"{host}.{int(kind == 'attentions')}"
        if last := DEPTHS.get(host):
            rest = rest.replace("transformer_blocks.0.", f"transformer_blocks.{last - 1}.")
    else:
        raise ValueError(f"expected a parameter of the miniature's U-Net; got {name}")
    part, _, leaf = rest.partition(".")
    return f"{block}.{RESNET[part]}.{leaf}" if part in RESNET else f"{block}.{rest}"


def _widen(name: str, value: Tensor) -> Tensor:
    if name == "conv_in.weight":
        return outputs(value, K)
    if name.startswith("conv_out."):
        return inputs(value, K) if value.ndim > 1 else value
    if name == "time_embedding.linear_1.weight":
        return outputs(_time_columns(value), K)
    if name == "add_embedding.linear_1.weight":
        return outputs(_pooled_columns(value), K)
    if match := re.search(r"attn(\d)\.to_([qkv])\.weight$", name):
        from_text = match[1] == "2" and match[2] != "q"
        value = _context_columns(value) if from_text else value
        return into_heads(value, K, None if from_text else K, query=match[2] == "q")
    if name.endswith("to_out.0.weight"):
        return out_of_heads(value, K)
    return layer(name, value, K)


def _time_columns(weight: Tensor) -> Tensor:
    """The narrow time code is every fifth frequency of the wide one: other columns are zero."""
    wide = torch.zeros(weight.shape[0], K * weight.shape[1])
    wide[:, ::K] = weight  # cosines, then sines: each half keeps its place
    return wide


def _context_columns(weight: Tensor) -> Tensor:
    """Columns of L's channels, then of G's: 160 -> 2048."""
    first, second = weight.split([L_WIDTH, G_WIDTH], dim=1)
    return torch.cat([inputs(first, K_L), inputs(second, K_G)], dim=1)


def _pooled_columns(weight: Tensor) -> Tensor:
    """Columns of pooled, widened, then of the sizes, whose code is as wide as SDXL's."""
    pooled, sizes = weight[:, :G_WIDTH], weight[:, G_WIDTH:]
    return torch.cat([inputs(pooled, K_G), sizes], dim=1)


def idle_transformers(wide: State) -> State:
    """Transformer blocks before the trained one of a stack, and stacks without a trained one."""
    state = {}
    for host, depth in DEPTHS.items():
        like = host if host in TRAINED else TRAINED[0]  # idle stacks are at the first one's width
        source = f"{like}.1."
        inner = f"{source}transformer_blocks.{DEPTHS[like] - 1}."
        for name, value in wide.items():
            if name.startswith(inner):
                for index in range(depth):
                    leaf = name.removeprefix(inner)
                    state[f"{host}.1.transformer_blocks.{index}.{leaf}"] = _blank(leaf, value.shape)
            elif name.startswith(source):
                leaf = name.removeprefix(source)
                state[f"{host}.1.{leaf}"] = _blank(leaf, value.shape)
    return {name: value for name, value in state.items() if name not in wide}


def idle_residual(wide: State, block: str, channels: int) -> State:
    """A residual block from `channels` to 320 that passes its first 320 channels on."""
    like = {n: v for n, v in wide.items() if n.startswith("output_blocks.7.0.")}
    state = {}
    for name, value in like.items():
        leaf = name.removeprefix("output_blocks.7.0.")
        shape = list(value.shape)
        if leaf.startswith("in_layers.0."):
            shape = [channels]
        elif leaf == "in_layers.2.weight":
            shape[1] = channels
        state[f"{block}.{leaf}"] = _blank(leaf, torch.Size(shape))
    if channels == WIDTH:
        return {n: v for n, v in state.items() if "skip_connection" not in n}
    passed = torch.eye(WIDTH, channels)[:, :, None, None]
    return state | {f"{block}.skip_connection.weight": passed}


def _blank(leaf: str, shape: torch.Size) -> Tensor:
    """Ones for the weight of a norm, zeros for anything else."""
    norm = re.search(r"norm\d?\.weight$|(?:in|out)_layers\.0\.weight$", leaf)
    return idle(shape, ones=norm is not None)
