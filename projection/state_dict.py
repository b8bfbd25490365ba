"""The adapters of a projection as named tensors: for files, and for training.

The names in files are `<adapter>.<field>`, for weight deltas `<adapter>.<module>.<field>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .adapters.deep_prompts import DeepPrompts
from .adapters.residual import Residual
from .adapters.unet_deltas import UNetDeltas
from .config.training_config import TrainingConfig
from .projector import Projection

Adapter = Residual | DeepPrompts | UNetDeltas

RESIDUAL, VISION, CROSS = "residual", "vision prompts", "cross-attention"
_TYPES: dict[str, type[Adapter]] = {RESIDUAL: Residual, VISION: DeepPrompts, CROSS: UNetDeltas}
_ATTRIBUTES = {RESIDUAL: "residual", VISION: "vision", CROSS: "cross_attention"}


def adapters_of(projection: Projection) -> dict[str, Adapter]:
    """The adapters that a projection has, by their name in files."""
    every = {name: getattr(projection, attribute) for name, attribute in _ATTRIBUTES.items()}
    return {name: adapter for name, adapter in every.items() if adapter is not None}


def features_of(projection: Projection) -> list[str]:
    """Names of the adapters that a projection has."""
    return list(adapters_of(projection))


def named_tensors(adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """Every tensor of the adapters under its name in files."""
    return {
        f"{name}.{field}": tensor
        for name, adapter in adapters.items()
        for field, tensor in adapter.tensors().items()
    }


def named_lr_scales(adapters: Mapping[str, Adapter], config: TrainingConfig) -> dict[str, float]:
    """The learning rate of every tensor, in units of the run's, under its name in files."""
    return {
        f"{name}.{field}": scale
        for name, adapter in adapters.items()
        for field, scale in adapter.lr_scales(config).items()
    }


def adapter_state_dict(projection: Projection) -> dict[str, Tensor]:
    """Every tensor of the projection's adapters under its name in files."""
    return named_tensors(adapters_of(projection))


def with_adapters(projection: Projection, tensors: Mapping[str, Tensor]) -> Projection:
    """The projection with the adapters of these tensors, named as by `adapter_state_dict`.

    An adapter of the projection without tensors here stays. Raises KeyError for an adapter
    without one of its tensors, ImageToPromptError for tensors that do not fit together.
    """
    found = {
        name: {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(name)}
        for name in _TYPES
    }
    adapters = {n: _TYPES[n].from_tensors(fields) for n, fields in found.items() if fields}
    return replace_adapters(projection, adapters)


def replace_adapters(projection: Projection, adapters: Mapping[str, Adapter | None]) -> Projection:
    """The projection with these adapters by name; None removes one, others stay."""
    parts: dict[str, Any] = {_ATTRIBUTES[name]: part for name, part in adapters.items()}
    return replace(projection, **parts)


def detached_copy(projection: Projection) -> Projection:
    """The same projection with tensors of its own, none of them made in inference mode."""
    matrix, singular_values = (
        t.detach().clone() for t in (projection.matrix, projection.singular_values)
    )
    bias = None if projection.bias is None else projection.bias.detach().clone()
    centred = None if projection.centred is None else projection.centred.copy()
    readings = None if projection.readings is None else projection.readings.detached_copy()
    own = replace(
        projection,
        matrix=matrix,
        singular_values=singular_values,
        bias=bias,
        centred=centred,
        readings=readings,
    )
    return with_adapters(own, {n: t.detach().clone() for n, t in adapter_state_dict(own).items()})
