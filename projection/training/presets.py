"""Presets: what is trained, how fast, on how much at a time. All numbers are ours.

The paper does not publish its rates, so none here is the paper's. They were chosen on the
miniature, see tests/miniature/fit_sweep.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ImageToPromptError


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. A part whose rate is 0 is not trained.

    learning_rate: of AdamW, less in wide models where `listen` is set (see `trainable`), times
    each part's own factor: `embedding` (residual on e), `cross_attention` (deltas of attn2 to_k
    and to_v), `vision` (deep prompts), `transformer` (low-rank deltas of every linear map in the
    transformer blocks, instead of cross_attention).
    residual_rank: of the map on e; 0: the shift alone. cross_rank: of the deltas; 0: full.
    transformer_rank: of those of `transformer`; listen: batches whose gradient says, before the
    first step, in which directions these listen, see `listening`; 0: random ones. directions: the
    factor of A in `transformer` deltas B A; 0: only B is trained.
    prompts: learnt tokens in each layer of the vision encoder. pictures: a step's pictures;
    levels: noise levels of each of them. drop: share of conditions replaced by the empty prompt.
    snr_limit: min-SNR's gamma, 0: none; the lower, the more the coarse (layout) counts.
    uniform: share of the noise levels drawn evenly instead, for the details. layout: most that a
    noise level counts by the error of the clean picture it predicts, see `picture_weight`; 0: all
    alike. pull: weight of 1 - cos(e, closed form). decay: AdamW's.
    keep: a step's further noisy pictures whose prompt a text edits and whose prediction shall
    stay what it was, see `keep`; keep_weight: how much each of them counts; keep_sets: steps take
    turns with so many sets of them, and the model is asked once for each what it said; 0: each
    step has its own; strongest: their text weights go from 0.4 to it. prior, prior_weight: the
    same for pictures that are given to stay what they were, where there are some.
    """

    learning_rate: float
    embedding: float = 0.0
    cross_attention: float = 0.0
    vision: float = 0.0
    transformer: float = 0.0
    residual_rank: int = 0
    cross_rank: int = 8
    transformer_rank: int = 8
    listen: int = 0
    directions: float = 0.0
    prompts: int = 8
    pictures: int = 1
    levels: int = 16
    drop: float = 0.0
    snr_limit: float = 0.1
    pull: float = 0.0
    decay: float = 0.0
    uniform: float = 0.0
    layout: float = 0.0
    keep: int = 0
    keep_weight: float = 1.0
    keep_sets: int = 0
    strongest: float = 1.3
    prior: int = 0
    prior_weight: float = 1.0


TEXT_ONLY = "text least squares"  # no gradient: `fit_from_text`
# Directions that the pictures themselves ask for.
_BLOCKS = {"transformer": 1.0, "directions": 1.0, "uniform": 0.3, "layout": 30.0}
_SETS = {"levels": 12, "keep": 4, "keep_weight": 1.5, "keep_sets": 8, "strongest": 0.9}
# These change how prompts are read, so that texts must be kept from being drowned out.
_KEEPING = {"levels": 12, "keep": 4, "keep_weight": 2.5, "uniform": 0.5, "layout": 30.0}
REFINE = MappingProxyType(
    {
        "transformer blocks": TrainingConfig(0.005, listen=1, **_BLOCKS, **_SETS),
        "cross-attention": TrainingConfig(0.3, cross_attention=1.0, **_KEEPING),
        "embedding + cross-attention": TrainingConfig(
            0.3, embedding=0.2, cross_attention=1.0, **_KEEPING
        ),
        "embedding": TrainingConfig(0.2, embedding=1.0, **_KEEPING),
    }
)
# A fit sees many pictures a step, and others that are to stay as they are, where there are some.
_FITTING = {
    "pictures": 4,
    "levels": 4,
    "uniform": 0.3,
    "layout": 30.0,
    "prior": 16,
    "prior_weight": 2.0,
}
_READING = {"cross_rank": 16, "keep": 4, **_FITTING}
FIT = MappingProxyType(
    {
        "transformer blocks": TrainingConfig(0.004, listen=4, **_BLOCKS | _FITTING),
        "cross-attention": TrainingConfig(2e-3, cross_attention=1.0, **_READING),
        # Those below have not been measured.
        "embedding + cross-attention": TrainingConfig(
            5e-4, embedding=1.0, cross_attention=1.0, residual_rank=8, **_READING
        ),
        "embedding": TrainingConfig(5e-4, embedding=1.0, residual_rank=8, **_FITTING),
        "full": TrainingConfig(
            5e-4,
            embedding=1.0,
            cross_attention=1.0,
            vision=1.0,
            residual_rank=8,
            cross_rank=0,
            **_FITTING,
        ),
    }
)


def recipe(
    presets: MappingProxyType[str, TrainingConfig], name: str, learning_rate: float = 0.0
) -> TrainingConfig:
    """The preset of this name from REFINE or FIT; a learning rate of 0 leaves its own.

    Raises ImageToPromptError for a name that is not there, or a rate that is not one.
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
    if not learning_rate:
        return chosen
    return TrainingConfig(**{**vars(chosen), "learning_rate": learning_rate})
