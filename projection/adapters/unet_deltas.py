"""The weight deltas of a whole U-Net: attn2's to_k and to_v, or all of the transformer blocks.

Names are those of the modules in checkpoints of SD 1.x, SD 2.x and SDXL without the prefix
`model.diffusion_model.`, such as `input_blocks.1.1.transformer_blocks.0.attn2.to_k`. SD 1.x and
2.x have one transformer block at each place, SDXL has up to ten: `transformer_blocks.0` to `.9`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..config.training_config import TrainingConfig
from ..errors import ImageToPromptError
from .checks import DAMAGED
from .lora import Delta, FullDelta, LoRADelta

# Linear maps in a transformer block: those that take the context, and all others.
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
TARGET_MODULES = (*CROSS_KV, *OTHER_LINEAR)
_TARGET = re.compile(
    rf".+\.transformer_blocks\.(0|[1-9][0-9]?)({'|'.join(map(re.escape, TARGET_MODULES))})"
)


def is_target(name: str) -> bool:
    """Whether a module of this name is a linear map in a transformer block."""
    return _TARGET.fullmatch(name) is not None


def cross_kv(linear_shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Those of the linear maps that take the context, in their order."""
    return {name: shape for name, shape in linear_shapes.items() if name.endswith(CROSS_KV)}


@dataclass(frozen=True, eq=False)
class UNetDeltas:
    """Weight deltas of the U-Net's linear maps by module name. Immutable.

    Raises ImageToPromptError for a name that is not of a linear map in a transformer block, for
    none at all, or if attn2's to_k and to_v take contexts of several widths.
    """

    deltas: Mapping[str, Delta]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))
        wrong = [name for name in self.deltas if not is_target(name)]
        widths = {delta.shape[1] for n, delta in self.deltas.items() if n.endswith(CROSS_KV)}
        if wrong or len(widths) > 1 or not self.deltas:
            got = f"{', '.join(wrong[:3])}" if wrong else f"contexts of widths {sorted(widths)}"
            expected = "deltas of attn2.to_k, attn2.to_v and the maps around them, for one context"
            raise ImageToPromptError(expected, got, DAMAGED, "projection file")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> UNetDeltas:
        """The inverse of `tensors`. Raises KeyError for a delta without one of its tensors."""
        names = dict.fromkeys(key.rpartition(".")[0] for key in tensors)
        return cls({name: _delta(name, tensors) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, named `<module>.<field>`."""
        return {
            f"{name}.{field}": tensor
            for name, delta in self.deltas.items()
            for field, tensor in delta.tensors().items()
        }

    def lr_scales(self, config: TrainingConfig) -> dict[str, float]:
        """Learning rates of the tensors, in units of the run's.

        0 for deltas of an earlier training whose maps the configuration does not target.
        """
        scales: dict[str, float] = {}
        for name, delta in self.deltas.items():
            lora = config.lora
            targeted = lora and (lora.targets == "transformer blocks" or name.endswith(CROSS_KV))
            none = dict.fromkeys(delta.tensors(), 0.0)
            own = delta.lr_scales(lora) if lora and targeted else none
            scales |= {f"{name}.{field}": scale for field, scale in own.items()}
        return scales

    def stored(self) -> UNetDeltas | None:
        """As a file has it: float16, on the CPU, without deltas that change nothing.

        None where no delta is left: whoever runs the U-Net then leaves it alone.
        """
        halves = {name: delta.stored() for name, delta in self.deltas.items()}
        kept = {name: delta for name, delta in halves.items() if not delta.is_zero}
        return UNetDeltas(kept) if kept else None

    @property
    def width(self) -> int | None:
        """C, the width of the contexts: the text encoder's. None if no delta takes them."""
        widths = (delta.shape[1] for n, delta in self.deltas.items() if n.endswith(CROSS_KV))
        return next(widths, None)


def _delta(name: str, tensors: Mapping[str, Tensor]) -> Delta:
    if f"{name}.matrix" in tensors:
        return FullDelta(tensors[f"{name}.matrix"])
    return LoRADelta(tensors[f"{name}.down"], tensors[f"{name}.up"])


def check_maps(change: UNetDeltas, linear_shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ImageToPromptError unless every delta has its map in the model, of its shape.

    linear_shapes: (O, C) of every linear map by name, see `Denoiser.linear_shapes`.
    """
    for name, delta in change.deltas.items():
        if linear_shapes.get(name) != delta.shape:
            found = f"one of {linear_shapes[name]}" if name in linear_shapes else "none"
            raise ImageToPromptError(
                f"a model with {name} of {delta.shape}",
                found,
                "Use the projection with the model family it was fitted on.",
                "model family",
            )


def lora_state(change: UNetDeltas, prefix: str = "diffusion_model.") -> dict[str, Tensor]:
    """The deltas in the form of a LoRA file: `<prefix><name>.lora_up.weight` and so on.

    Low-rank deltas give lora_up, lora_down and alpha (= rank: strength 1 is the delta itself);
    full ones give `<prefix><name>.diff`. Values keep their dtype.
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
