"""The parameters of a training run: where they start, their learning rates, how they are stored.

Every adapter starts as the identity: the factor that multiplies into the result is zero. Learning
rates are scaled by width, so that a step changes the prompt's direction, and the output of a
linear map, by about as much in a narrow model as in a wide one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from ..adapters.deep_prompts import DeepPrompts, VisionTower
from ..adapters.lora import Delta, FullDelta, LoRADelta
from ..adapters.residual import Residual
from ..adapters.unet_deltas import UNetDeltas
from ..config.training_config import LoRAConfig, TrainingConfig
from ..diffusion.denoiser import Denoiser
from ..errors import ImageToPromptError
from ..initialization.warm_start import restored, warm_start
from ..projector import Projection
from ..state_dict import (
    CROSS,
    RESIDUAL,
    VISION,
    Adapter,
    adapters_of,
    detached_copy,
    named_lr_scales,
    named_tensors,
    replace_adapters,
    with_adapters,
)

_TUNED_WIDTH = 96  # of the contexts that the presets' rates were chosen on


class TrainableParameters:
    """Leaf tensors by name, and the projection that they make up.

    denoiser: only names and shapes are read. directions: (R, D), A of deltas of cross-attention,
    see `pca_init`; None where no such delta is trained.

    initial: the given projection, in tensors of its own. current: the projection of the values,
    differentiable. values: float32, named as in files; those whose rate is 0 have no gradient.
    rates: AdamW's learning rate of each. fresh_modules: modules of the transformer blocks whose
    deltas begin here, so that A may still be initialised.
    """

    def __init__(
        self,
        projection: Projection,
        config: TrainingConfig,
        denoiser: Denoiser,
        directions: Tensor | None,
        tower: VisionTower | None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.initial = detached_copy(projection)
        known = adapters_of(projection)
        adapters = _initial_adapters(projection, known, config, tower, generator)
        self._factors: dict[str, float] = {}
        self.fresh_modules: tuple[str, ...] = ()
        if config.lora is not None:
            fresh = _fresh_deltas(config.lora, denoiser, directions, generator)
            given = projection.cross_attention
            deltas, self._factors = warm_start(given, fresh)
            adapters[CROSS] = UNetDeltas(deltas)
            if config.lora.targets == "transformer blocks":
                self.fresh_modules = tuple(n for n in fresh if not given or n not in given.deltas)
        if not adapters:
            raise ImageToPromptError(
                "a preset that trains something", f"{config}", "Choose another preset."
            )
        self._trained = frozenset(adapters)
        rate = config.learning_rate * _width_factor(projection, config)
        scales = named_lr_scales(adapters, config)
        self.rates = {name: rate * scale for name, scale in scales.items()}
        self.values = {
            name: value.detach()
            .to(device, torch.float32, copy=True)
            .requires_grad_(self.rates[name] > 0)
            for name, value in named_tensors(adapters).items()
        }
        self.current = with_adapters(self.initial, self.values)

    @property
    def trained(self) -> dict[str, Tensor]:
        """The values that have a gradient."""
        return {name: value for name, value in self.values.items() if value.requires_grad}

    def export(self, values: Mapping[str, Tensor] | None = None) -> Projection:
        """An independent projection of these values, or of the current ones, as files have it.

        Prompts and deltas are rounded to float16 here, so that a file holds what was used. Deltas
        that change nothing are left out.
        """
        made = with_adapters(self.initial, values or self.values)
        stored: dict[str, Adapter | None] = {}
        for name, adapter in adapters_of(made).items():
            if name in self._trained:
                if isinstance(adapter, UNetDeltas):
                    adapter = restored(adapter, self._factors)
                stored[name] = adapter.stored()
        return replace_adapters(made, stored)

    def set_directions(self, directions: Mapping[str, Tensor]) -> None:
        """Set A (R, C) of these modules' low-rank deltas."""
        deltas = self.current.cross_attention.deltas if self.current.cross_attention else {}
        with torch.no_grad():
            for name, rows in directions.items():
                deltas[name].tensors()["down"].copy_(rows)

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the values, detached."""
        return {name: value.detach().clone() for name, value in self.values.items()}


def _initial_adapters(
    projection: Projection,
    known: Mapping[str, Adapter],
    config: TrainingConfig,
    tower: VisionTower | None,
    generator: torch.Generator,
) -> dict[str, Adapter]:
    """Residual and deep prompts to train; those that the projection has go on from there."""
    adapters: dict[str, Adapter] = {}
    if config.residual is not None:
        width, rank = projection.embedding_width, config.residual.rank
        adapters[RESIDUAL] = known.get(RESIDUAL) or Residual.initial(width, rank, generator)
    if config.deep_prompts is not None and tower is not None:
        tokens = config.deep_prompts.tokens
        adapters[VISION] = known.get(VISION) or DeepPrompts.initial(tower, tokens, generator)
    return adapters


def _fresh_deltas(
    lora: LoRAConfig,
    denoiser: Denoiser,
    directions: Tensor | None,
    generator: torch.Generator,
) -> dict[str, Delta]:
    """Deltas before training for every module that the configuration targets."""
    if lora.targets == "transformer blocks":
        return {
            name: LoRADelta.initial(_random_rows(lora.rank, shape[1], generator), shape[0])
            for name, shape in denoiser.linear_shapes.items()
        }
    if not lora.rank or directions is None:
        return {name: FullDelta.initial(shape) for name, shape in denoiser.cross_kv_shapes.items()}
    return {
        name: LoRADelta.initial(directions.clone(), outputs)
        for name, (outputs, _) in denoiser.cross_kv_shapes.items()
    }


def _random_rows(rank: int, inputs: int, generator: torch.Generator) -> Tensor:
    """A (R, C), R <= rank, uniform; for unit inputs each row's output has a variance of 1.

    So a step counts alike for all C.
    """
    bound = sqrt(3 / inputs)
    return bound * (2 * torch.rand(min(rank, inputs), inputs, generator=generator) - 1)


def _width_factor(projection: Projection, config: TrainingConfig) -> float:
    """The factor of the learning rate where A is initialised by gradients.

    Rows along the gradient have a gain that grows with the root of the width, so that a step
    counts for more. Rates were chosen for contexts of width 96.
    """
    if config.lora is None or not config.lora.gradient_init_batches:
        return 1.0
    return min(1.0, sqrt(_TUNED_WIDTH / projection.context_width))
