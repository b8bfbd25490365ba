"""Presets of refining and fitting. All numbers are ours.

The paper does not publish its rates, so none here is the paper's. They were chosen on the
miniature, see tests/miniature/fit_sweep.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..errors import ImageToPromptError
from .training_config import (
    DeepPromptsConfig,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    ResidualConfig,
    TrainingConfig,
)

# The preset of `fit_from_text`: a closed form, so that it has no TrainingConfig.
TEXT_ONLY = "text least squares"

_LOSS_GAMMA = 1 / 30
# Cross-attention alone changes how prompts are read: it needs stronger prompt preservation.
_REFINE_NOISE = NoiseConfig(
    timesteps_per_image=12, uniform_timestep_fraction=0.5, loss_min_snr_gamma=_LOSS_GAMMA
)
_REFINE_PRESERVATION = PreservationConfig(preserve_pairs=4, preserve_weight=2.5)
REFINE: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        "transformer blocks": TrainingConfig(
            0.005,
            lora=LoRAConfig("transformer blocks", down_lr_scale=1.0, gradient_init_batches=1),
            noise=replace(_REFINE_NOISE, uniform_timestep_fraction=0.3),
            preservation=PreservationConfig(
                preserve_pairs=4, preserve_weight=1.5, preserve_cache=8, max_text_weight=0.9
            ),
        ),
        "cross-attention": TrainingConfig(
            0.3, lora=LoRAConfig(), noise=_REFINE_NOISE, preservation=_REFINE_PRESERVATION
        ),
        "embedding + cross-attention": TrainingConfig(
            0.3,
            residual=ResidualConfig(lr_scale=0.2),
            lora=LoRAConfig(),
            noise=_REFINE_NOISE,
            preservation=_REFINE_PRESERVATION,
        ),
        "embedding": TrainingConfig(
            0.2,
            residual=ResidualConfig(),
            noise=_REFINE_NOISE,
            preservation=_REFINE_PRESERVATION,
        ),
    }
)

_FIT_BATCH = 4
_FIT_NOISE = NoiseConfig(
    timesteps_per_image=4, uniform_timestep_fraction=0.3, loss_min_snr_gamma=_LOSS_GAMMA
)
_PRIOR_ONLY = PreservationConfig(prior_batch_size=16, prior_loss_weight=2.0)
_PRIOR_AND_PROMPTS = replace(_PRIOR_ONLY, preserve_pairs=4)
FIT: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        "transformer blocks": TrainingConfig(
            0.004,
            lora=LoRAConfig("transformer blocks", down_lr_scale=1.0, gradient_init_batches=4),
            noise=_FIT_NOISE,
            preservation=_PRIOR_ONLY,
            batch_size=_FIT_BATCH,
        ),
        "cross-attention": TrainingConfig(
            2e-3,
            lora=LoRAConfig(rank=16),
            noise=_FIT_NOISE,
            preservation=_PRIOR_AND_PROMPTS,
            batch_size=_FIT_BATCH,
        ),
        # Those below have not been measured.
        "embedding + cross-attention": TrainingConfig(
            5e-4,
            residual=ResidualConfig(rank=8),
            lora=LoRAConfig(rank=16),
            noise=_FIT_NOISE,
            preservation=_PRIOR_AND_PROMPTS,
            batch_size=_FIT_BATCH,
        ),
        "embedding": TrainingConfig(
            5e-4,
            residual=ResidualConfig(rank=8),
            noise=_FIT_NOISE,
            preservation=_PRIOR_ONLY,
            batch_size=_FIT_BATCH,
        ),
        "full": TrainingConfig(
            5e-4,
            residual=ResidualConfig(rank=8),
            lora=LoRAConfig(rank=0),
            deep_prompts=DeepPromptsConfig(),
            noise=_FIT_NOISE,
            preservation=_PRIOR_ONLY,
            batch_size=_FIT_BATCH,
        ),
    }
)


def training_config(
    presets: Mapping[str, TrainingConfig], name: str, learning_rate: float = 0.0
) -> TrainingConfig:
    """The preset of this name from REFINE or FIT; a learning rate of 0 leaves the preset's own.

    Raises ImageToPromptError for an unknown name, or a learning rate outside 0..1.
    """
    if name not in presets:
        raise ImageToPromptError(
            f"one of {', '.join(presets)}", repr(name), "Choose another preset."
        )
    if not 0 <= learning_rate <= 1:
        raise ImageToPromptError(
            "a learning rate from 0 (the preset's) to 1", f"{learning_rate}", "Use 0."
        )
    chosen = presets[name]
    return replace(chosen, learning_rate=learning_rate) if learning_rate else chosen
