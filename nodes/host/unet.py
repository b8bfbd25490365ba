"""The user's U-Net as a `projection.Denoiser`: differentiable, and never changed.

What ComfyUI loads are inference tensors, which autograd refuses to save. For one call the U-Net
is given views of the same memory, so there is no second copy. Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...projection.adapters.unet_deltas import cross_kv
from .autograd_weights import as_normal_tensor, autograd_weights
from .checkpointing import checkpointed_blocks
from .delta_hooks import delta_hooks, gradient_factor, scale_gradient
from .model.checks import (
    check_model,
    compute_dtype,
    layers_of,
    prediction_of,
    without_dynamic_weights,
)
from .model.runtime_patches import RuntimePatches

# Activations that a backward pass keeps, for each latent cell: SD 1.5's U-Net in 16 bit, counted
# at 64 x 64 cells with a kernel that keeps its attention maps; half of it with one that does not.
_BYTES_PER_CELL = 0.46e6
_PROBE = 32  # latent cells of a side


class HostDenoiser:
    """See `projection.Denoiser`. Made for one run; holds no tensors of its own but the schedule.

    gradient_checkpointing: save no activations within the U-Net's blocks but compute them again
    for the backward pass, a third more work. Raises ImageToPromptError for a model that is not an
    SD 1.x U-Net, or that carries a projection's changes already; `predict` raises it at its first
    call for run-time patches that cannot be trained with.
    """

    def __init__(self, model: Any, text_width: int, gradient_checkpointing: bool = False) -> None:
        check_model(model, text_width)
        self._patcher = without_dynamic_weights(model)
        self._gradient_checkpointing = gradient_checkpointing
        sampling = model.get_model_object("model_sampling")
        self.alphas_cumprod = 1 / (1 + sampling.sigmas.detach().cpu().double() ** 2)
        self.prediction_type = prediction_of(sampling)
        self.linear_shapes = layers_of(model)
        self.cross_kv_shapes = cross_kv(self.linear_shapes)
        sigmas = as_normal_tensor(sampling.sigmas).cpu().float()
        self._runtime_patches = RuntimePatches(self._patcher, sigmas)
        self._probed = False

    @property
    def device(self) -> torch.device:
        """Where the U-Net runs."""
        return self._patcher.load_device

    @property
    def latent_format(self) -> Any:
        """The host's description of the latents, for previews."""
        return self._patcher.model.latent_format

    def predict(
        self, noisy: Tensor, times: Tensor, context: Tensor, deltas: Mapping[str, Any]
    ) -> Tensor:
        """See `Denoiser.predict`. Checks for the host's interrupt before the work."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._load(noisy)
        if not self._runtime_patches:
            return self._forward(noisy, times, context, deltas)
        if not self._probed:
            self._probe(noisy, times, context)
            self._probed = True
        # A sampler's batch has one sigma, and patches read the first of them only.
        singles = [slice(i, i + 1) for i in range(len(noisy))]
        return torch.cat([self._forward(noisy[i], times[i], context[i], deltas) for i in singles])

    def activations(self, size: Sequence[int]) -> float:
        """Bytes that a backward pass keeps for one picture of latents of this height and width."""
        wide = compute_dtype(self._patcher.model) == torch.float32
        return (2 if wide else 1) * _BYTES_PER_CELL * math.prod(size)

    def max_batch_size(self, size: Sequence[int]) -> int:
        """How many pictures of this size (h, w) fit beside the model at once: at least one.

        From the device's whole memory, not the free part, so that it is the same at every run.
        """
        total = comfy.model_management.get_total_memory(self.device)
        left = 0.7 * total - self._patcher.model_size()
        return max(1, int(left / self.activations(size)))

    def _load(self, noisy: Tensor) -> None:
        # Whole: weights streamed through the host's buffers would be overwritten before backward.
        with torch.inference_mode():
            comfy.model_management.load_models_gpu(
                [self._patcher],
                memory_required=self.activations(noisy.shape[2:]) * len(noisy),
                force_full_load=True,
            )

    def _probe(self, noisy: Tensor, times: Tensor, context: Tensor) -> None:
        """One small forward and backward pass, so that unfit patches are refused before steps."""
        with torch.inference_mode(False), torch.enable_grad(), self._runtime_patches.refusing():
            # Without checkpoints, under which autograd would not see changes in place.
            leaf = context[:1].detach().clone().requires_grad_(True)
            corner = noisy[:1, :, :_PROBE, :_PROBE].detach().clone()
            output = self._forward(corner, times[:1], leaf, {}, checkpointing=False)
            torch.autograd.grad(output.square().mean(), leaf)

    def _forward(
        self,
        noisy: Tensor,
        times: Tensor,
        context: Tensor,
        deltas: Mapping[str, Any],
        checkpointing: bool = True,
    ) -> Tensor:
        base = self._patcher.model
        unet, dtype, device = base.diffusion_model, compute_dtype(base), self.device
        factor = gradient_factor(noisy, dtype)
        inputs = (noisy.to(device, dtype), times.to(device).float())
        options = {
            "context": scale_gradient(context.to(device), 1 / factor).to(dtype),
            "transformer_options": self._runtime_patches.transformer_options(times, device),
        }
        with ExitStack() as stack:
            stack.enter_context(self._runtime_patches.seeded(times, device))
            stack.enter_context(delta_hooks(unet, deltas, factor))
            if self._gradient_checkpointing and checkpointing:
                drawing = bool(self._runtime_patches)
                stack.enter_context(checkpointed_blocks(unet, deltas, factor, device, drawing))
            weights = autograd_weights(unet, device)
            output = torch.func.functional_call(unet, weights, inputs, options)
        return scale_gradient(output.float(), factor).to(noisy.device)
