"""Trained changes of a U-Net's cross-attentions: what each attn2's to_k and to_v gain.

Where a preset trains the whole transformer blocks, their other linear maps gain likewise.

    k = W_k c + B A c          A: down (r, C), B: up (O, r);  or  k = W_k c + D c

A picks out directions of the pictures' prompts, see `keys`, or what the loss asks to hear, see
`listening`. The U-Net itself is never
touched: whoever runs it adds the change where it is wanted. Names are those of the modules in
SD 1.x checkpoints without the prefix `model.diffusion_model.`, such as
`input_blocks.1.1.transformer_blocks.0.attn2.to_k`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from .residual import DAMAGED, check_numbers


@dataclass(frozen=True, eq=False)
class LoRADelta:
    """The change B A of one linear map. down: (r, C), up: (O, r); float16 or float32."""

    down: Tensor
    up: Tensor

    def __post_init__(self) -> None:
        check_numbers("a cross-attention change", self.down, self.up)
        fit = self.down.ndim == self.up.ndim == 2
        if not fit or self.up.shape[1] != len(self.down) or not len(self.down):
            got = f"{tuple(self.down.shape)} and {tuple(self.up.shape)}"
            raise ImageToPromptError(
                "a low-rank change of (r, C) and (O, r)", got, DAMAGED, "projection file"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(O, C), as `torch.nn.Linear.weight`."""
        return len(self.up), self.down.shape[1]

    def weight(self) -> Tensor:
        """The change of the weight (O, C), float32; differentiable."""
        return self.up.float() @ self.down.float()

    def __call__(self, context: Tensor) -> Tensor:
        """What the map's output (B, L, O) gains for a context (B, L, C); differentiable."""
        return context @ self.down.to(context).T @ self.up.to(context).T

    def added_to(self, output: Tensor, context: Tensor) -> Tensor:
        """output (..., O) and what it gains, in one pass over it; of one type."""
        heard = context.flatten(0, -2) @ self.down.to(context).T
        return torch.addmm(output.flatten(0, -2), heard, self.up.to(context).T).view_as(output)


@dataclass(frozen=True, eq=False)
class FullDelta:
    """The change D of one linear map. matrix: (O, C); float16 or float32."""

    matrix: Tensor

    def __post_init__(self) -> None:
        check_numbers("a cross-attention change", self.matrix)
        if self.matrix.ndim != 2:
            got = f"{tuple(self.matrix.shape)}"
            raise ImageToPromptError(
                "a cross-attention change of (O, C)", got, DAMAGED, "projection file"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(O, C), as `torch.nn.Linear.weight`."""
        return tuple(self.matrix.shape)

    def weight(self) -> Tensor:
        """The change of the weight (O, C), float32; differentiable."""
        return self.matrix.float()

    def __call__(self, context: Tensor) -> Tensor:
        """What the map's output (B, L, O) gains for a context (B, L, C); differentiable."""
        return context @ self.matrix.to(context).T

    def added_to(self, output: Tensor, context: Tensor) -> Tensor:
        """output (..., O) and what it gains, in one pass over it; of one type."""
        inputs = context.flatten(0, -2)
        return torch.addmm(output.flatten(0, -2), inputs, self.matrix.to(context).T).view_as(output)


Delta = LoRADelta | FullDelta

# Linear maps in a transformer block: those that read the context, and all others.
CROSS_KV = (".attn2.to_k", ".attn2.to_v")
OTHER_LINEAR = (
    ".attn1.to_q",
    ".attn1.to_k",
    ".attn1.to_v",
    ".attn1.to_out.0",
    ".attn2.to_q",
    ".attn2.to_out.0",
    ".ff.net.0.proj",
    ".ff.net.2",
)
TARGET_MODULES = tuple(f".transformer_blocks.0{name}" for name in (*CROSS_KV, *OTHER_LINEAR))


def reading(layers: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Those of the linear maps that read the context, in their order."""
    return {name: shape for name, shape in layers.items() if name.endswith(CROSS_KV)}


@dataclass(frozen=True, eq=False)
class UNetDeltas:
    """Changes of cross-attentions, and of what is around them, by module name. Immutable.

    Raises ImageToPromptError for a name that is not of a linear map in a transformer block, for
    none at all, or if attn2's to_k and to_v read contexts of several widths.
    """

    deltas: Mapping[str, Delta]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))
        wrong = [n for n in self.deltas if not n.endswith(TARGET_MODULES)]
        widths = {self.deltas[name].shape[1] for name in self._reading}
        if wrong or len(widths) > 1 or not self.deltas:
            got = f"{', '.join(wrong[:3])}" if wrong else f"contexts of widths {sorted(widths)}"
            expected = "changes of attn2.to_k, attn2.to_v and the maps around them, for one context"
            raise ImageToPromptError(expected, got, DAMAGED, "projection file")

    @property
    def _reading(self) -> list[str]:
        return [name for name in self.deltas if name.endswith(CROSS_KV)]

    @property
    def width(self) -> int | None:
        """C, the width of the contexts: the text encoder's. None if nothing here reads them."""
        return self.deltas[self._reading[0]].shape[1] if self._reading else None


def check_maps(change: UNetDeltas, maps: Mapping[str, tuple[int, int]]) -> None:
    """Raise ImageToPromptError unless every change has its map in the model, of its shape.

    maps: (O, C) of every linear map that may be changed, see `Denoiser.layers`.
    """
    for name, delta in change.deltas.items():
        if maps.get(name) != delta.shape:
            found = f"one of {maps[name]}" if name in maps else "none"
            raise ImageToPromptError(
                f"a model with {name} of {delta.shape}",
                found,
                "Use the projection with the model family it was fitted on.",
                "model family",
            )


def lora_state(change: UNetDeltas, prefix: str = "diffusion_model.") -> dict[str, Tensor]:
    """The changes in the form of a LoRA file: `<prefix><name>.lora_up.weight` and so on.

    Low-rank changes give lora_up, lora_down and alpha (= rank: strength 1 is the change
    itself); full ones give `<prefix><name>.diff`. Values keep their type.
    """
    state: dict[str, Tensor] = {}
    for name, delta in change.deltas.items():
        if isinstance(delta, FullDelta):
            state[f"{prefix}{name}.diff"] = delta.matrix
            continue
        state[f"{prefix}{name}.lora_up.weight"] = delta.up
        state[f"{prefix}{name}.lora_down.weight"] = delta.down
        state[f"{prefix}{name}.alpha"] = torch.tensor(float(len(delta.down)))
    return state
