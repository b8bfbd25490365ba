"""What a recipe trains: where its tensors start, how fast they go, and how they are stored.

Every part starts as the identity: what multiplies into the result is zero. Rates are scaled by
width so that a step changes the prompt's direction, and the output of a map, by about as much in
a narrow model as in a wide one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor

from ..adapters.deep_prompts import VisionTower
from ..adapters.lora import CROSS_KV
from ..diffusion.denoiser import Denoiser
from ..errors import ImageToPromptError
from ..initialization.warm_start import drop_zero_deltas, warm_start
from ..projector import Projection
from ..state_dict import CROSS, RESIDUAL, VISION, adapter_state_dict, with_adapters
from .presets import TrainingConfig

_MINIATURE = 96  # width of the text encoder that rates were chosen on


class TrainableParameters:
    """Leaf tensors by name, and the projection that is alive with them.

    denoiser: only names and shapes are read. keys: (R, D), rows A of deltas of cross-attentions,
    see `keys`. rates: AdamW's rate of each, 0 for what stays. values: float32, with gradients
    unless they stay. listening: names `cross-attention.<map>` of whole blocks' deltas that begin
    here, whose down may still be chosen. start: the projection that was given. live: the one that
    gives whatever the values say, differentiably.
    """

    def __init__(
        self,
        projection: Projection,
        recipe: TrainingConfig,
        denoiser: Denoiser,
        keys: Tensor,
        tower: VisionTower | None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.start = _owned(projection)
        start, self._back = _starting(projection, recipe, denoiser, keys, tower, generator)
        self.listening = _fresh(projection, recipe, denoiser)
        rate = recipe.learning_rate * (_width_factor(projection) if recipe.listen else 1.0)
        self.rates = {n: rate * _rate(n, v, recipe) for n, v in start.items()}
        self.values = {
            name: value.detach().to(device, torch.float32, copy=True).requires_grad_(moves)
            for name, value in start.items()
            for moves in (self.rates[name] > 0,)
        }
        self.live = with_adapters(self.start, self.values)

    def frozen(self, values: Mapping[str, Tensor] | None = None) -> Projection:
        """An independent projection of these values, or of the current ones, as it is stored.

        Prompts and deltas are rounded to float16 here, so that a file has what was used. Deltas
        that change nothing are left out: the host then leaves those maps alone.
        """
        stored = {
            name: (value.detach() * self._back.get(name, 1.0)).to("cpu", _stored_type(name))
            for name, value in (values or self.values).items()
        }
        told = drop_zero_deltas(stored)
        silent = told.keys() != stored.keys()
        start = replace(self.start, cross_attention=None) if silent else self.start
        return with_adapters(start, told)

    def listen(self, directions: Mapping[str, Tensor]) -> None:
        """Let each of these deltas listen in its directions (R, C) from now on."""
        with torch.no_grad():
            for name, rows in directions.items():
                self.values[f"{name}.down"].copy_(rows)

    def copies(self) -> dict[str, Tensor]:
        """The values as they are now, detached."""
        return {name: value.detach().clone() for name, value in self.values.items()}


def _owned(projection: Projection) -> Projection:
    """The same projection with tensors of its own, none of them made in inference mode."""
    matrix, singular_values, bias = (
        None if t is None else t.detach().clone()
        for t in (projection.matrix, projection.singular_values, projection.bias)
    )
    own = replace(projection, matrix=matrix, singular_values=singular_values, bias=bias)
    if own.centred is not None:
        own = replace(own, centred=own.centred.copy())
    return with_adapters(own, {n: t.detach().clone() for n, t in adapter_state_dict(own).items()})


def _starting(
    projection: Projection,
    recipe: TrainingConfig,
    denoiser: Denoiser,
    keys: Tensor,
    tower: VisionTower | None,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors of the parts to train; parts the projection has already go on from there.

    Second: see `warm_start`.
    """
    known = adapter_state_dict(projection)
    start: dict[str, Tensor] = {}
    back: dict[str, float] = {}
    if recipe.embedding:
        start |= _known(known, RESIDUAL) or _residual(projection, recipe, generator)
    if recipe.vision and tower is not None:
        start |= _known(known, VISION) or _prompts(tower, recipe, generator)
    if recipe.cross_attention:
        deltas, back = warm_start(known, _deltas(denoiser.maps, recipe, keys))
        start |= deltas
    if recipe.transformer:
        fresh = _everywhere(denoiser.layers, recipe.transformer_rank, generator)
        deltas, back = warm_start(known, fresh)
        start |= deltas
    if not start:
        raise ImageToPromptError(
            "a preset that trains something", f"{recipe}", "Choose another preset."
        )
    return start, back


def _known(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(part)}


def _residual(
    projection: Projection, recipe: TrainingConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    width, rank = projection.encoder.text_width, recipe.residual_rank
    return {
        f"{RESIDUAL}.down": torch.randn(rank, width, generator=generator),
        f"{RESIDUAL}.up": torch.zeros(width, rank),
        f"{RESIDUAL}.shift": torch.zeros(width),
    }


def _prompts(
    tower: VisionTower, recipe: TrainingConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    shape = (len(tower.layers), recipe.prompts, tower.width)
    return {
        f"{VISION}.tokens": torch.randn(shape, generator=generator),
        f"{VISION}.gates": torch.zeros(len(tower.layers), tower.heads),
    }


def _deltas(
    maps: Mapping[str, tuple[int, int]], recipe: TrainingConfig, keys: Tensor
) -> dict[str, Tensor]:
    start = {}
    for name, (outputs, inputs) in maps.items():
        if not recipe.cross_rank:
            start[f"{CROSS}.{name}.matrix"] = torch.zeros(outputs, inputs)
            continue
        start[f"{CROSS}.{name}.down"] = keys.clone()
        start[f"{CROSS}.{name}.up"] = torch.zeros(outputs, len(keys))
    return start


def _fresh(projection: Projection, recipe: TrainingConfig, denoiser: Denoiser) -> tuple[str, ...]:
    known = projection.cross_attention.deltas if projection.cross_attention else {}
    names = denoiser.layers if recipe.transformer else {}
    return tuple(f"{CROSS}.{name}" for name in names if name not in known)


def _everywhere(
    layers: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Low-rank deltas of all linear maps, listening in random directions until told others."""
    start = {}
    for name, (outputs, inputs) in layers.items():
        at = f"{CROSS}.{name}"
        # Each direction hears about as much as one input: a step then counts alike at all widths.
        bound = sqrt(3 / inputs)
        rows = min(rank, inputs)
        start[f"{at}.down"] = bound * (2 * torch.rand(rows, inputs, generator=generator) - 1)
        start[f"{at}.up"] = torch.zeros(outputs, rows)
    return start


def _width_factor(projection: Projection) -> float:
    """Rows along a gradient hear with the root of the width, so that a step counts for more.

    Rates were chosen on the miniature, whose text encoder is 96 wide.
    """
    return min(1.0, sqrt(_MINIATURE / projection.encoder.text_width))


def _rate(name: str, value: Tensor, recipe: TrainingConfig) -> float:
    """The rate of one tensor in units of the recipe's learning rate; see the module."""
    part, field = name.split(".", 1)[0], name.rpartition(".")[2]
    at = name.rpartition(".")[0]
    if part == RESIDUAL:
        return recipe.embedding / (1.0 if field == "down" else sqrt(value.shape[0]))
    if part == VISION:
        return recipe.vision
    if field == "down":
        return recipe.directions  # 0 where `keys` or the first gradients have chosen for good
    if not recipe.transformer and not at.endswith(CROSS_KV):
        return 0.0  # of an earlier training of whole blocks
    factor = recipe.transformer or recipe.cross_attention
    return factor / (value.shape[-1] if field == "matrix" else 1.0)


def _stored_type(name: str) -> torch.dtype:
    return torch.float32 if name.startswith(RESIDUAL) else torch.float16
