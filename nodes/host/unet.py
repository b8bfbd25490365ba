"""The user's U-Net as a `projection.Denoiser`: differentiable, and never changed.

What ComfyUI loads are inference tensors, which autograd refuses to save. For one call the U-Net
is given views of the same memory, so there is no second copy. Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ...projection.adapters.unet_deltas import cross_kv
from .autograd_weights import as_normal_tensor, autograd_weights
from .checkpointing import checkpointed_blocks
from .delta_hooks import delta_hooks, gradient_factor, scale_gradient
from .model.checks import (
    SD1,
    ModelFamily,
    check_model,
    compute_dtype,
    layers_of,
    prediction_of,
    without_dynamic_weights,
)
from .model.memory import activation_bytes, max_batch_size, needs_checkpointing
from .model.runtime_patches import RuntimePatches

_PROBE = 32  # latent cells of a side


class HostDenoiser:
    """See `projection.Denoiser`. Made for one run; holds no tensors of its own but the schedule.

    text_width: of the contexts. gradient_checkpointing: save no activations within the U-Net's
    blocks but compute them again for the backward pass, a third more work; None: where those of
    one picture do not fit beside the model. Raises ImageToPromptError for a model that is no U-Net
    of the family, or that carries a projection's changes already; `predict` raises it at its first
    call for run-time patches that cannot be trained with.
    """

    def __init__(
        self,
        model: Any,
        text_width: int,
        gradient_checkpointing: bool | None = False,
        family: ModelFamily = SD1,
    ) -> None:
        check_model(model, text_width, family)
        self._family = family
        self._patcher = without_dynamic_weights(model)
        self._gradient_checkpointing = gradient_checkpointing
        sampling = model.get_model_object("model_sampling")
        self.alphas_cumprod = 1 / (1 + sampling.sigmas.detach().cpu().double() ** 2)
        self.prediction_type = prediction_of(sampling, family)
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
        self,
        noisy: Tensor,
        times: Tensor,
        context: Tensor,
        deltas: Mapping[str, Any],
        pooled: Tensor | None = None,
    ) -> Tensor:
        """See `Denoiser.predict`. Checks for the host's interrupt before the work."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._load(noisy)
        if not self._runtime_patches:
            return self._forward(noisy, times, context, deltas, pooled)
        if not self._probed:
            self._probe(noisy, times, context, pooled)
            self._probed = True
        # A sampler's batch has one sigma, and patches read the first of them only.
        each = [slice(i, i + 1) for i in range(len(noisy))]
        vectors = [None if pooled is None else pooled[i] for i in each]
        return torch.cat(
            [
                self._forward(noisy[i], times[i], context[i], deltas, vector)
                for i, vector in zip(each, vectors, strict=True)
            ]
        )

    def max_batch_size(self, size: Sequence[int]) -> int:
        """How many pictures of this size (h, w) fit beside the model at once: at least one."""
        return max_batch_size(self._patcher, self._family, size, self._checkpoints(size))

    def _checkpoints(self, size: Sequence[int]) -> bool:
        """Whether a backward pass of latents of this size computes activations again."""
        if self._gradient_checkpointing is None:
            return needs_checkpointing(self._patcher, self._family, size)
        return self._gradient_checkpointing

    def _load(self, noisy: Tensor) -> None:
        # Whole: weights streamed through the host's buffers would be overwritten before backward.
        size = noisy.shape[2:]
        base, checkpoints = self._patcher.model, self._checkpoints(size)
        each = activation_bytes(base, self._family, size, checkpoints)
        with torch.inference_mode():
            comfy.model_management.load_models_gpu(
                [self._patcher],
                memory_required=each * len(noisy),
                force_full_load=True,
            )

    def _probe(self, noisy: Tensor, times: Tensor, context: Tensor, pooled: Tensor | None) -> None:
        """One small forward and backward pass, so that unfit patches are refused before steps."""
        with torch.inference_mode(False), torch.enable_grad(), self._runtime_patches.refusing():
            # Without checkpoints, under which autograd would not see changes in place.
            leaf = context[:1].detach().clone().requires_grad_(True)
            corner = noisy[:1, :, :_PROBE, :_PROBE].detach().clone()
            vector = None if pooled is None else pooled[:1].detach()
            output = self._forward(corner, times[:1], leaf, {}, vector, checkpointing=False)
            torch.autograd.grad(output.square().mean(), leaf)

    def _forward(
        self,
        noisy: Tensor,
        times: Tensor,
        context: Tensor,
        deltas: Mapping[str, Any],
        pooled: Tensor | None,
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
        if pooled is not None:
            scaled = scale_gradient(pooled.to(device), 1 / factor)
            options["y"] = self._vector(noisy, scaled).to(device, dtype)
        with ExitStack() as stack:
            stack.enter_context(self._runtime_patches.seeded(times, device))
            stack.enter_context(delta_hooks(unet, deltas, factor))
            if checkpointing and self._checkpoints(noisy.shape[2:]):
                drawing = bool(self._runtime_patches)
                stack.enter_context(checkpointed_blocks(unet, deltas, factor, device, drawing))
            weights = autograd_weights(unet, device)
            output = torch.func.functional_call(unet, weights, inputs, options)
        return scale_gradient(output.float(), factor).to(noisy.device)

    def _vector(self, noisy: Tensor, pooled: Tensor) -> Tensor:
        """What the model makes of pooled (B, P) and of these latents' size, as in sampling."""
        cond = {"pooled_output": pooled, "model_conds": {}}
        found = comfy.samplers.encode_model_conds(
            self._patcher.model.extra_conds, [cond], noisy, self.device, "positive"
        )
        return found[0]["model_conds"]["y"].cond
