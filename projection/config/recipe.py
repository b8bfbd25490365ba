"""The flat configuration of earlier versions: its field names are part of a run's fingerprint.

An unfinished run of an earlier version is recognised by a hash of these names and values, so that
they never change; `TrainingConfig` may.
"""

from __future__ import annotations

from typing import Any

from .training_config import (
    DeepPromptsConfig,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    ResidualConfig,
    TrainingConfig,
)


def recipe_fields(config: TrainingConfig) -> dict[str, float | int]:
    """The configuration under the field names of earlier versions, which `Recipe` reads."""
    noise, preservation = config.noise, config.preservation
    return {
        "learning_rate": config.learning_rate,
        "pictures": config.batch_size,
        "levels": noise.timesteps_per_image,
        "drop": config.condition_dropout,
        "snr_limit": noise.sampling_min_snr_gamma,
        "pull": config.anchor_weight,
        "decay": config.weight_decay,
        "uniform": noise.uniform_timestep_fraction,
        "layout": _inverse(noise.loss_min_snr_gamma),
        "keep": preservation.preserve_pairs,
        "keep_weight": preservation.preserve_weight,
        "keep_sets": preservation.preserve_cache,
        "strongest": preservation.max_text_weight,
        "prior": preservation.prior_batch_size,
        "prior_weight": preservation.prior_loss_weight,
        **_parts(config),
    }


def _parts(config: TrainingConfig) -> dict[str, float | int]:
    """The fields of what is trained; the defaults of earlier versions for what is not."""
    residual, lora, prompts = config.residual, config.lora, config.deep_prompts
    blocks = lora is not None and lora.targets == "transformer blocks"
    cross = lora is not None and not blocks
    return {
        "embedding": residual.lr_scale if residual else 0.0,
        "residual_rank": residual.rank if residual else 0,
        "vision": prompts.lr_scale if prompts else 0.0,
        "prompts": prompts.tokens if prompts else 8,
        "cross_attention": lora.lr_scale if lora and cross else 0.0,
        "cross_rank": lora.rank if lora and cross else 8,
        "transformer": lora.lr_scale if lora and blocks else 0.0,
        "transformer_rank": lora.rank if lora and blocks else 8,
        "listen": lora.gradient_init_batches if lora else 0,
        "directions": lora.down_lr_scale if lora else 0.0,
    }


def _inverse(gamma: float) -> float:
    """1 / gamma, the number of few digits where one has this inverse; 0 for 0."""
    if not gamma:
        return 0.0
    short = float(f"{1 / gamma:.12g}")
    return short if 1 / short == gamma else 1 / gamma


def Recipe(learning_rate: float, **fields: Any) -> TrainingConfig:
    """A TrainingConfig from the fields of earlier versions; kept for code that was written then.

    Raises TypeError for an unknown field.
    """
    given = recipe_fields(TrainingConfig(learning_rate))
    unknown = sorted(fields.keys() - given.keys())
    if unknown:
        raise TypeError(f"Recipe has no field {', '.join(unknown)}")
    old = given | fields
    blocks = bool(old["transformer"])
    lora = LoRAConfig(
        "transformer blocks" if blocks else "cross-attention",
        old["transformer_rank"] if blocks else old["cross_rank"],
        old["transformer"] or old["cross_attention"],
        old["directions"],
        old["listen"],
    )
    return TrainingConfig(
        learning_rate,
        ResidualConfig(old["residual_rank"], old["embedding"]) if old["embedding"] else None,
        lora if lora.lr_scale else None,
        DeepPromptsConfig(old["prompts"], old["vision"]) if old["vision"] else None,
        NoiseConfig(
            old["levels"],
            old["snr_limit"],
            old["uniform"],
            1 / old["layout"] if old["layout"] else 0.0,
        ),
        PreservationConfig(
            old["keep"],
            old["keep_weight"],
            old["keep_sets"],
            old["strongest"],
            old["prior"],
            old["prior_weight"],
        ),
        old["pictures"],
        old["drop"],
        old["pull"],
        old["decay"],
    )
