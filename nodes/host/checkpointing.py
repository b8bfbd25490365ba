"""Gradient checkpointing of the host's U-Net: activations are computed again for the backward.

Blocks are checkpointed by an instance-level `forward`. Another pack may have set one too: that
one runs inside, and is back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .autograd_weights import autograd_weights
from .delta_hooks import delta_hooks

BLOCKS = (ResBlock, SpatialTransformer)


@contextmanager
def checkpointed_blocks(
    unet: torch.nn.Module,
    deltas: Mapping[str, Any],
    factor: float,
    device: torch.device,
    random_patches: bool = False,
) -> Iterator[None]:
    """Within the block the U-Net's residual blocks and transformers save their inputs only.

    deltas, factor: as for `delta_hooks`, which must be in place around this. random_patches:
    whether something in a block may draw random numbers, which the second pass must draw again.
    """
    # Whether the U-Net around has its weights and changes in place: in the first pass only.
    first_pass = [True]
    with ExitStack() as stack:
        stack.callback(first_pass.clear)
        for path, block in unet.named_modules():
            if not isinstance(block, BLOCKS):
                continue
            inside = {n[len(path) + 1 :]: d for n, d in deltas.items() if n.startswith(f"{path}.")}
            recompute = _recomputable(block, inside, factor, device, first_pass)
            stack.callback(_restore_forward, block, vars(block).get("forward"))
            block.forward = _checkpointed(recompute, random_patches)
        yield


def _restore_forward(block: torch.nn.Module, previous: Callable[..., Any] | None) -> None:
    if previous is None:
        vars(block).pop("forward", None)
    else:
        block.forward = previous


def _recomputable(
    block: torch.nn.Module,
    deltas: Mapping[str, Any],
    factor: float,
    device: torch.device,
    first_pass: list[bool],
) -> Callable[..., Tensor]:
    """The block's own forward, which puts weights and changes in place where nobody else does."""
    forward = block.forward
    weights = {f"block.{n}": weight for n, weight in autograd_weights(block, device).items()}

    def run(*inputs: Any, **options: Any) -> Tensor:
        # The host writes into its options as it goes: each pass starts from what was given.
        inputs, options = _copied(inputs, options)
        if first_pass:
            return forward(*inputs, **options)
        with delta_hooks(block, deltas, factor):
            return torch.func.functional_call(_Forward(block, forward), weights, inputs, options)

    return run


class _Forward(torch.nn.Module):
    """A block's forward without the hooks of the block itself: these run outside of checkpoints."""

    def __init__(self, block: torch.nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.block, self._block_forward = block, forward

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self._block_forward(*inputs, **options)


def _checkpointed(run: Callable[..., Tensor], random_patches: bool) -> Callable[..., Tensor]:
    def forward(*inputs: Any, **options: Any) -> Tensor:
        inputs, options = _copied(inputs, options)
        return checkpoint(
            run, *inputs, use_reentrant=False, preserve_rng_state=random_patches, **options
        )

    return forward


def _copied(inputs: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments, every dict among them copied."""
    return (
        tuple(dict(value) if isinstance(value, dict) else value for value in inputs),
        {k: dict(value) if isinstance(value, dict) else value for k, value in options.items()},
    )
