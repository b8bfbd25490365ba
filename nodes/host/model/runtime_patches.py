"""Run-time patches of a MODEL while it is trained with. Read in 0.3.64 and 0.33.0.

Patches are functions that the host's U-Net calls on its way: FreeU, Deep Shrink, HyperTile, IP
adapters. They were written for sampling. Here they are given what every sampler gives them, and
run so that autograd accepts what they do: inference tensors of their own, and changes in place.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.ldm.modules.attention
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ....projection import ImageToPromptError
from ..autograd_weights import as_normal_tensor
from .patch_settings import named_patches

log = logging.getLogger(__name__)

# Called between blocks, with what the next block reads: some write into it.
_BETWEEN_BLOCKS = (
    "emb_patch",
    "input_block_patch",
    "input_block_patch_after_skip",
    "middle_block_after_patch",
    "output_block_patch",
)
# What a patch that lacks something, or that autograd refuses, fails with.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_POSITIVE = 0  # the sampler's number of the positive prompt


class RuntimePatches:
    """The run-time patches of a ModelPatcher, and the transformer_options that they read.

    sigmas: (T,) of each time step, ascending, not an inference tensor. True if there are any.
    """

    def __init__(self, patcher: Any, sigmas: Tensor) -> None:
        self._patcher, self._sigmas = patcher, sigmas
        self._prompt_id = uuid.uuid4()
        self._warn_of_sampling_wrappers()

    def __bool__(self) -> bool:
        return bool(named_patches(self._patcher))

    def transformer_options(self, times: Tensor, device: torch.device) -> dict[str, Any]:
        """What the host's samplers give, for one positive prompt at these times (B,) of 0..T-1.

        With the model's own options, and a kernel of attention that has a gradient.
        """
        options = dict(self._patcher.model_options.get("transformer_options", {}))
        schedule = torch.cat([self._sigmas.flip(0), self._sigmas.new_zeros(1)])
        return {
            **options,
            "patches": _trainable_lists(options.get("patches", {})),
            "patches_replace": _trainable_dicts(options.get("patches_replace", {})),
            "cond_or_uncond": [_POSITIVE],
            "uuids": [self._prompt_id],
            "sigmas": self._sigmas[times.cpu()].to(device),
            "sample_sigmas": schedule.to(device),
            "optimized_attention_override": _differentiable_attention,
        }

    def seeded(self, times: Tensor, device: torch.device) -> AbstractContextManager[None]:
        """Within it patches draw the same random numbers for the same time, and move no other's."""
        return _seeded(int(times[0]), device) if self else nullcontext()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what fails within the block into an ImageToPromptError that names the patches.

        Interrupts and a lack of memory stay what they are.
        """
        try:
            yield
        except (ImageToPromptError, torch.cuda.OutOfMemoryError):
            raise
        except _FAILURES as error:
            names = ", ".join(dict.fromkeys(named_patches(self._patcher)))
            raise ImageToPromptError(
                "a MODEL with run-time patches that have a gradient",
                f"{names}, which failed with {type(error).__name__}: {error}",
                "Place these patches behind the MODEL output of this node, not before its socket "
                "model.",
            ) from error

    def _warn_of_sampling_wrappers(self) -> None:
        wrappers = self._patcher.wrappers.items()
        found = [kind for kind, by_key in wrappers if any(by_key.values())]
        found += [k for k in ("model_function_wrapper",) if k in self._patcher.model_options]
        if found:
            log.warning(
                "the MODEL has wrappers that only sampling uses, training runs without: %s",
                ", ".join(sorted(found)),
            )


def _differentiable_attention(_: Any, *args: Any, **kwargs: Any) -> Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if on_cuda:
            torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        yield


def _trainable_lists(patches: Mapping[str, list]) -> dict[str, list]:
    return {
        kind: [_trainable(patch, kind in _BETWEEN_BLOCKS) for patch in some]
        for kind, some in patches.items()
    }


def _trainable_dicts(patches: Mapping[str, Mapping]) -> dict[str, dict]:
    return {
        kind: {place: _trainable(patch, False) for place, patch in some.items()}
        for kind, some in patches.items()
    }


def _trainable(patch: Any, between_blocks: bool) -> Any:
    """The patch, or a pair of a layer's type and a patch, as autograd accepts it."""
    if isinstance(patch, tuple):
        return tuple(_trainable(part, between_blocks) for part in patch)
    if isinstance(patch, type) or not callable(patch):
        return patch
    guard = _between_blocks if between_blocks else _in_a_block
    return functools.partial(guard, patch)


def _in_a_block(patch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _NormalTensors():
        return patch(*args, **kwargs)


def _between_blocks(patch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # A skip connection was read by an earlier block, which needs it as it was; and what the patch
    # itself has read is saved before the patch writes into it.
    given = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
    with _NormalTensors(), saved_tensors_hooks(Tensor.clone, lambda saved: saved):
        return patch(*given, **kwargs)


class _NormalTensors(TorchFunctionMode):
    """Patches hold inference tensors, which autograd refuses to save: views stand in for them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, _saveable, (args, kwargs or {}))
        return func(*args, **kwargs)


def _saveable(tensor: Tensor) -> Tensor:
    # Quantised weights are subclasses, which the host's operations dequantise by themselves.
    plain = type(tensor) in (Tensor, torch.nn.Parameter)
    return as_normal_tensor(tensor) if plain and tensor.is_inference() else tensor
