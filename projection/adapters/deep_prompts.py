"""Deep prompts (Jia et al. 2022) in CLIP's vision transformer: the trained part of the encoder.

In the paper's fine-tuned encoder every layer is given learnt tokens, fresh in each layer. Their
own outputs are thrown away after the layer, so all they do is to be attended to. That is what
is computed here, as one more attention whose result is added under a gate:

    x <- x + attention(x) + g O softmax(q(x) k(p)^T / sqrt(d)) v(p)      x, p behind LayerNorm 1

with the layer's own q, k, v and O (without its bias). Two differences from the authors' code:
there the prompts of the first layer replace patches instead of joining them; and prompts share
one softmax with the tokens, which no prompt leaves exactly as it was. With the gate g at zero
the encoder is the plain one bit for bit (the gated form: LLaMA-Adapter, Zhang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config.training_config import TrainingConfig
from ..errors import ImageToPromptError
from .checks import DAMAGED, NUMBERS, unfit


@dataclass(frozen=True, eq=False)
class DeepPrompts:
    """Learnt tokens for every layer of a vision transformer. Immutable.

    tokens: (L, P, V), P tokens for each of L layers, width V of the vision encoder, in the space
    of the layers' inputs. gates: (L, H), one for each attention head. float16 or float32.
    Raises ImageToPromptError if the shapes do not fit together.
    """

    tokens: Tensor
    gates: Tensor

    def __post_init__(self) -> None:
        if got := unfit(self.tokens, self.gates):
            raise ImageToPromptError(f"deep prompts of {NUMBERS}", got, DAMAGED, "projection file")
        fit = self.tokens.ndim == 3 and self.gates.ndim == 2
        if not fit or len(self.tokens) != len(self.gates) or not self.tokens.numel():
            got = f"{tuple(self.tokens.shape)} and {tuple(self.gates.shape)}"
            raise ImageToPromptError(
                "deep prompts (L, P, V) with gates (L, H)", got, DAMAGED, "projection file"
            )

    @classmethod
    def initial(cls, tower: VisionTower, tokens: int, generator: torch.Generator) -> DeepPrompts:
        """Prompts before training: random tokens whose gates are 0, so that they add nothing."""
        layers = len(tower.layers)
        drawn = torch.randn(layers, tokens, tower.width, generator=generator)
        return cls(drawn, torch.zeros(layers, tower.heads))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> DeepPrompts:
        """The inverse of `tensors`. Raises KeyError where one is missing."""
        return cls(tensors["tokens"], tensors["gates"])

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the name of their field."""
        return {"tokens": self.tokens, "gates": self.gates}

    def lr_scales(self, config: TrainingConfig) -> dict[str, float]:
        """Learning rates of its tensors, in units of the run's."""
        scale = config.deep_prompts.lr_scale if config.deep_prompts else 0.0
        return {"tokens": scale, "gates": scale}

    def stored(self) -> DeepPrompts:
        """As a file has it: float16, on the CPU, detached."""
        return DeepPrompts(*(t.detach().to("cpu", torch.float16) for t in self.tensors().values()))


class VisionTower(Protocol):
    """A CLIP vision transformer in parts; `TransformersTower` is the one of `transformers`."""

    @property
    def layers(self) -> Sequence[Any]:
        """The layers, each with layer_norm1 and self_attn.{q,k,v,out}_proj."""
        ...

    @property
    def heads(self) -> int:
        """H, attention heads of a layer."""
        ...

    @property
    def width(self) -> int:
        """V, the width of a token."""
        ...

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens (B, N, V) that enter layer 0, from preprocessed images (B, 3, S, S)."""
        ...

    def self_attention(self, index: int, normed: Tensor) -> Tensor:
        """Layer `index`'s own self-attention (B, N, V) of LayerNorm 1's output (B, N, V)."""
        ...

    def mlp(self, index: int, hidden: Tensor) -> Tensor:
        """Layer `index`'s MLP on LayerNorm 2 of hidden (B, N, V), without the residual."""
        ...

    def project(self, hidden: Tensor) -> Tensor:
        """Image embeddings (B, J), joint CLIP space, from the last layer's tokens (B, N, V)."""
        ...


def check_tower(prompts: DeepPrompts, tower: VisionTower) -> None:
    """Raise ImageToPromptError unless the prompts were made for a vision encoder of this shape."""
    layers, _, width = prompts.tokens.shape
    expected = (layers, prompts.gates.shape[1], width)
    got = (len(tower.layers), tower.heads, tower.width)
    if expected != got:
        raise ImageToPromptError(
            f"a vision encoder of {expected[0]} layers, {expected[1]} heads and width {width}",
            f"{got[0]} layers, {got[1]} heads and width {got[2]}",
            "Use the CLIP vision encoder that the projection was fitted with.",
            "vision encoder",
        )


def encode_pictures(
    tower: VisionTower, pixels: Tensor, prompts: DeepPrompts | None = None
) -> Tensor:
    """Image embeddings (B, J), joint CLIP space, not normalised; differentiable in the prompts.

    pixels: (B, 3, S, S), preprocessed as the tower wants them. Raises ImageToPromptError for
    prompts made for another tower.
    """
    if prompts is not None:
        check_tower(prompts, tower)
    hidden = tower.embed(pixels)
    for index, layer in enumerate(tower.layers):
        normed = layer.layer_norm1(hidden)
        attended = tower.self_attention(index, normed)
        if prompts is not None:
            attended = attended + prompt_attention(layer, normed, prompts, index)
        hidden = hidden + attended
        hidden = hidden + tower.mlp(index, hidden)
    return tower.project(hidden)


def prompt_attention(layer: Any, normed: Tensor, prompts: DeepPrompts, index: int) -> Tensor:
    """The addition of layer `index`'s prompts to its attention (B, N, V), gates included.

    layer: the layer's module; normed: (B, N, V), its tokens behind LayerNorm 1.
    """
    attention, gates = layer.self_attn, prompts.gates[index].to(normed)
    heads = len(gates)
    tokens = layer.layer_norm1(prompts.tokens[index].to(normed))  # (P, V)
    query, key, value = (
        project(x).unflatten(-1, (heads, -1)).transpose(-3, -2)  # (..., N, V) -> (..., H, N, d)
        for project, x in (
            (attention.q_proj, normed),
            (attention.k_proj, tokens),
            (attention.v_proj, tokens),
        )
    )
    weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)
    mixed = gates[:, None, None] * (weights @ value)  # (B, H, N, d)
    joined = mixed.transpose(-3, -2).flatten(-2)
    # The bias of the output belongs to the plain attention, which has added it already.
    return attention.out_proj(joined) - attention.out_proj(0 * joined[:1, :1])
