"""The configuration of a training run, in parts: what is trained, on which noise, kept near what.

Learning rates are products: `TrainingConfig.learning_rate` times the `lr_scale` of a part times
what the part's own tensors add, see `Residual.lr_scales` and its like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# attn2's to_k and to_v alone, or every linear map of the transformer blocks.
Targets = Literal["cross-attention", "transformer blocks"]


@dataclass(frozen=True)
class ResidualConfig:
    """The residual on the prompt embedding e. rank: of its linear map; 0: the shift alone."""

    rank: int = 0
    lr_scale: float = 1.0


@dataclass(frozen=True)
class DeepPromptsConfig:
    """Deep prompts of the vision encoder. tokens: learnt tokens in each layer."""

    tokens: int = 8
    lr_scale: float = 1.0


@dataclass(frozen=True)
class LoRAConfig:
    """Weight deltas B A of the U-Net (LoRA, Hu et al. 2021).

    rank: of each delta; 0, for cross-attention only: full matrices. down_lr_scale: learning rate
    of A in units of `TrainingConfig.learning_rate`; 0: B alone is trained (LoRA-FA, Zhang et al.
    2023). gradient_init_batches: batches whose gradient initialises A of the transformer blocks
    before the first step, see `gradient_init`; 0: A is random.
    """

    targets: Targets = "cross-attention"
    rank: int = 8
    lr_scale: float = 1.0
    down_lr_scale: float = 0.0
    gradient_init_batches: int = 0


@dataclass(frozen=True)
class NoiseConfig:
    """Which time steps a step trains on, and the weight of each in the loss.

    timesteps_per_image: drawn for each image of a batch. sampling_min_snr_gamma: time steps are
    drawn in proportion to their Min-SNR weight (Hang et al. 2023) of this gamma; 0: evenly.
    uniform_timestep_fraction: share of the draws that is even all the same. loss_min_snr_gamma:
    gamma of the Min-SNR weight that multiplies the loss; 0: all time steps weigh alike.
    """

    timesteps_per_image: int = 16
    sampling_min_snr_gamma: float = 0.1
    uniform_timestep_fraction: float = 0.0
    loss_min_snr_gamma: float = 0.0


@dataclass(frozen=True)
class PreservationConfig:
    """Predictions that training should leave as they were, see `preservation`.

    preserve_pairs: noisy images a step under a prompt edited by text; preserve_weight: weight of
    each in the loss; preserve_cache: number of sets of such pairs that steps take in turn, whose
    teacher predictions are computed once; 0: every step draws its own. max_text_weight: text
    weights are drawn from `preservation.MIN_TEXT_WEIGHT` to it. prior_batch_size: noisy prior
    images a step, where the trainer is given prior images; prior_loss_weight: weight of each.
    """

    preserve_pairs: int = 0
    preserve_weight: float = 1.0
    preserve_cache: int = 0
    max_text_weight: float = 1.3
    prior_batch_size: int = 0
    prior_loss_weight: float = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """How to train a projection. A part that is None is not trained.

    learning_rate: of AdamW; see `parameters` for its scaling by width. batch_size: images a step.
    condition_dropout: share of the conditions replaced by the empty prompt. anchor_weight: weight
    of 1 - cos(e, e before training). weight_decay: of AdamW.
    """

    learning_rate: float
    residual: ResidualConfig | None = None
    lora: LoRAConfig | None = None
    deep_prompts: DeepPromptsConfig | None = None
    noise: NoiseConfig = NoiseConfig()
    preservation: PreservationConfig = PreservationConfig()
    batch_size: int = 1
    condition_dropout: float = 0.0
    anchor_weight: float = 0.0
    weight_decay: float = 0.0
