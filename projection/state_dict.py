"""The trained parts of a projection as named tensors: what is stored, and what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from .adapters.deep_prompts import DeepPrompts
from .adapters.lora import Delta, FullDelta, LoRADelta, UNetDeltas
from .adapters.residual import Residual
from .projector import Projection

RESIDUAL, VISION, CROSS = "residual", "vision prompts", "cross-attention"


def features_of(projection: Projection) -> list[str]:
    """Names of the trained parts that a projection has."""
    parts = (projection.residual, projection.vision, projection.cross_attention)
    names = (RESIDUAL, VISION, CROSS)
    return [name for name, part in zip(names, parts, strict=True) if part is not None]


def adapter_state_dict(projection: Projection) -> dict[str, Tensor]:
    """Every tensor of the trained parts: `<part>.<field>`, for deltas `<part>.<map>.<field>`."""
    tensors: dict[str, Tensor] = {}
    for name, part in ((RESIDUAL, projection.residual), (VISION, projection.vision)):
        if part is not None:
            tensors |= {f"{name}.{field}": value for field, value in vars(part).items()}
    if projection.cross_attention is not None:
        for name, delta in projection.cross_attention.deltas.items():
            tensors |= {f"{CROSS}.{name}.{field}": value for field, value in vars(delta).items()}
    return tensors


def with_adapters(projection: Projection, tensors: Mapping[str, Tensor]) -> Projection:
    """The projection with the parts that `tensors` hold, named as `adapter_state_dict` names them.

    Raises KeyError for a part without one of its tensors, ImageToPromptError for misfits.
    """
    found = {
        name: {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(name)}
        for name in (RESIDUAL, VISION, CROSS)
    }
    parts = {}
    if residual := found[RESIDUAL]:
        parts["residual"] = Residual(residual["down"], residual["up"], residual["shift"])
    if vision := found[VISION]:
        parts["vision"] = DeepPrompts(vision["tokens"], vision["gates"])
    if cross := found[CROSS]:
        names = dict.fromkeys(key.rpartition(".")[0] for key in cross)
        parts["cross_attention"] = UNetDeltas({n: _delta(n, cross) for n in names})
    return replace(projection, **parts)


def _delta(name: str, tensors: Mapping[str, Tensor]) -> Delta:
    if f"{name}.matrix" in tensors:
        return FullDelta(tensors[f"{name}.matrix"])
    return LoRADelta(tensors[f"{name}.down"], tensors[f"{name}.up"])
