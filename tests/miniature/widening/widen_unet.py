"""The narrow U-Net and autoencoder at SD 1.5's widths, under the key names of its checkpoints."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .layers import State, inputs, layer, outputs

K, K_CONTEXT, K_TAESD = 5, 8, 4
HOST_SCALE = 0.18215  # the host multiplies an SD 1.5 latent by this before the U-Net sees it

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}


def widen_unet(narrow: State) -> State:
    """State dict of the host's U-Net (no prefix) from diffusers' narrow one."""
    return {host_name(name): _widen(name, value) for name, value in narrow.items()}


def _widen(name: str, value: Tensor) -> Tensor:
    if name == "conv_in.weight":
        return outputs(value, K)
    if name.startswith("conv_out."):
        return inputs(value, K) if value.ndim > 1 else value
    if name == "time_embedding.linear_1.weight":
        return outputs(_time_columns(value), K)
    if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
        return layer(name, value, K, K_CONTEXT)
    return layer(name, value, K)


def _time_columns(weight: Tensor) -> Tensor:
    """The narrow time code is every fifth frequency of the wide one: other columns are zero."""
    wide = torch.zeros(weight.shape[0], K * weight.shape[1])
    wide[:, ::K] = weight  # cosines, then sines: each half keeps its place
    return wide


def host_name(name: str) -> str:
    """The checkpoint's name of a diffusers parameter, for one block a level and two levels."""
    for ours, theirs in ENDS.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    place, rest = _place(name)
    part, _, leaf = rest.partition(".")
    return f"{place}.{RESNET[part]}.{leaf}" if part in RESNET else f"{place}.{rest}"


def _place(name: str) -> tuple[str, str]:
    """The host's block of a parameter, and what is left of its name."""
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}", rest
    if match := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{2 * int(match[1]) + 2}.0", f"op.{match[2]}"
    if match := re.match(r"down_blocks\.(\d)\.(resnets|attentions)\.0\.(.*)", name):
        level, kind, rest = match.groups()
        return f"input_blocks.{2 * int(level) + 1}.{int(kind == 'attentions')}", rest
    if match := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.*)", name):
        return f"output_blocks.{2 * int(match[1]) + 1}.2", f"conv.{match[2]}"
    if match := re.match(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        level, kind, index, rest = match.groups()
        return f"output_blocks.{2 * int(level) + int(index)}.{int(kind == 'attentions')}", rest
    raise ValueError(f"expected a parameter of the miniature's U-Net; got {name}")


def widen_taesd(narrow: State, latent_std: float) -> State:
    """State dict of the host's TAESD from diffusers' narrow one, with unit-variance latents."""
    last = 1 + max(int(name.split(".")[2]) for name in narrow if name.startswith("decoder"))
    wide = {
        "vae_scale": torch.tensor(HOST_SCALE * latent_std),
        "vae_shift": torch.tensor(0.0),
    }
    for name, value in narrow.items():
        half, _, index, leaf = name.split(".", 3)
        # The host counts the decoder's clamp as a layer.
        place = int(index) + (half == "decoder")
        host = f"taesd_{half}.{place}.{leaf}"
        wide[host] = _widen_taesd(value, leaf, place, last if half == "decoder" else 14)
    return wide


def _widen_taesd(value: Tensor, leaf: str, place: int, last: int) -> Tensor:
    is_end = "." not in leaf  # only plain convolutions can be the first or the last layer
    if is_end and place == last:
        return inputs(value, K_TAESD) if value.ndim > 1 else value
    if is_end and value.ndim > 1 and value.shape[1] in (3, 4):
        return outputs(value, K_TAESD)
    return layer(leaf, value, K_TAESD)
