"""A hook that a CONDITIONING carries: another prompt for each cross-attention block.

The host's TransformerOptionsHook of scope "hooked only" with a patch of the inputs of attn2, so
that the MODEL and other CONDITIONING stay as they are. Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.hooks
import torch
from torch import Tensor

from ....projection.prompt.block_weights import BlockWeights

PARTS = ("keys and values", "keys", "values")


class BlockPatch:
    """Gives each block base + w (prompt - base), for its keys, its values or both.

    base: (b, M, D), rows repeat over a batch. length: L, tokens of the prompt that is weighted;
    what core's Concat put behind them stays.
    """

    def __init__(self, weights: BlockWeights, base: Tensor, length: int, part: str) -> None:
        self._weights, self._base, self._length = weights, base, length
        self._keys, self._values = part != PARTS[2], part != PARTS[1]

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the host calls a patch of attn2: inputs (N, ..., D) of the layer's projections."""
        kind, index = options["block"][:2]
        weight = self._weights.of((kind, index))
        if weight == 1:
            return query, keys, values
        chunks = len(options.get("cond_or_uncond", (0,)))
        mixed_keys = self._mixed(keys, weight, chunks)
        mixed_values = mixed_keys if values is keys else self._mixed(values, weight, chunks)
        if self._keys and self._values:
            return query, mixed_keys, mixed_values
        # Keys of one prompt need values in as many tokens.
        if self._keys:
            return query, *_as_long(mixed_keys, values)
        return query, *_as_long(keys, mixed_values)

    def _mixed(self, prompt: Tensor, weight: float, chunks: int) -> Tensor:
        """base + w (prompt - base), (N, L', D); the base alone for a weight of 0."""
        own, behind = prompt[:, : self._length], prompt[:, self._length :]
        base = self._base.to(prompt)
        count = len(prompt) // chunks  # rows of a latent batch
        base = base.repeat(math.ceil(count / len(base)), 1, 1)[:count].repeat(chunks, 1, 1)
        if weight != 0:
            own, base = _as_long(own, base)
            base = torch.lerp(base, own, weight)
        return torch.cat([base, behind], dim=1) if behind.shape[1] else base


def _as_long(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both repeated to one length, which attention does not notice."""
    length = math.lcm(one.shape[1], other.shape[1])
    return one.repeat(1, length // one.shape[1], 1), other.repeat(1, length // other.shape[1], 1)


def hook_group(patch: BlockPatch) -> Any:
    """The patch as hooks for a CONDITIONING."""
    hook = comfy.hooks.TransformerOptionsHook(
        transformers_dict={"patches": {"attn2_patch": [patch]}},
        hook_scope=comfy.hooks.EnumHookScope.HookedOnly,
    )
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


def with_hooks(extras: dict[str, Any], group: Any) -> dict[str, Any]:
    """The extras of a CONDITIONING's entry with these hooks beside those that it has."""
    present = extras.get("hooks")
    return {**extras, "hooks": present.clone_and_combine(group) if present else group}
