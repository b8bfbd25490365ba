"""The user's U-Net as a `projection.Denoiser`: differentiable, and never changed.

What ComfyUI loads are inference tensors, which autograd refuses to keep. They are lent for one
call as views of the same memory, so there is no second copy of the U-Net. Read in 0.3.64, 0.33.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...projection import ImageToPromptError
from ...projection.adapters.unet_deltas import TARGET_MODULES, cross_kv

PREFIX = "diffusion_model."
_SD1_ADVICE = "Connect the MODEL of an SD 1.x checkpoint (socket model)."
# Marks a MODEL that carries a projection's changes already; see `host_patches`.
ATTACHMENT = "image_to_prompt"
# Activations that a backward pass keeps, for each latent cell: SD 1.5's U-Net in 16 bit, counted
# at 64 x 64 cells with a kernel that keeps its attention maps; half of it with one that does not.
_BYTES_PER_CELL = 0.46e6


class HostDenoiser:
    """See `projection.Denoiser`. Made for one run; holds no tensors of its own but the schedule.

    frugal: keep no activations within the U-Net's blocks but compute them again for the backward
    pass, a third more work. Raises ImageToPromptError for a model that is not an SD 1.x U-Net, or
    that carries a projection's changes already.
    """

    def __init__(self, model: Any, text_width: int, gradient_checkpointing: bool = False) -> None:
        check_model(model, text_width)
        self._patcher, self._gradient_checkpointing = (
            without_dynamic_weights(model),
            gradient_checkpointing,
        )
        sampling = model.get_model_object("model_sampling")
        self.alphas_cumprod = 1 / (1 + sampling.sigmas.detach().cpu().double() ** 2)
        self.prediction_type = prediction_of(sampling)
        self.linear_shapes = layers_of(model)
        self.cross_kv_shapes = cross_kv(self.linear_shapes)

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
        return self._forward(noisy, times, context, deltas)

    def activations(self, size: Sequence[int]) -> float:
        """Bytes that a backward pass keeps for one picture of latents of this height and width."""
        wide = _compute_type(self._patcher.model) == torch.float32
        return (2 if wide else 1) * _BYTES_PER_CELL * math.prod(size)

    def fitting(self, size: Sequence[int]) -> int:
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

    def _forward(
        self, noisy: Tensor, times: Tensor, context: Tensor, deltas: Mapping[str, Any]
    ) -> Tensor:
        base = self._patcher.model
        unet, dtype, device = base.diffusion_model, _compute_type(base), self.device
        factor = _gradient_factor(noisy) if dtype == torch.float16 else 1.0
        inputs = (noisy.to(device, dtype), times.to(device).float())
        options = {
            "context": scale_gradient(context.to(device), 1 / factor).to(dtype),
            "transformer_options": _transformer_options(self._patcher),
        }
        with ExitStack() as stack:
            stack.enter_context(joined(unet, deltas, factor))
            if self._gradient_checkpointing:
                stack.enter_context(checkpointed_blocks(unet, deltas, factor, device))
            output = torch.func.functional_call(
                unet, autograd_weights(unet, device), inputs, options
            )
        return scale_gradient(output.float(), factor).to(noisy.device)


# --- lending ---------------------------------------------------------------------------------


def autograd_weights(module: torch.nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The module's weights by name, as tensors on the device that autograd may keep.

    In their own memory, but for what the host has left elsewhere to stream it on demand (0.33).
    """
    return {
        name: view(weight).to(device)
        for name, weight in module.named_parameters()
        if type(weight) in (Tensor, torch.nn.Parameter)  # the host's quantised ones cast themselves
    }


def view(weight: Tensor) -> Tensor:
    """The same numbers in the same memory, neither an inference tensor nor trainable."""
    if not weight.is_inference():
        return weight.detach()
    empty = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return empty.set_(
        weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride()
    )


@contextmanager
def joined(unet: torch.nn.Module, deltas: Mapping[str, Any], factor: float) -> Iterator[None]:
    """Within the block every map in `deltas` gives what it gives, and the gain of its input."""
    with ExitStack() as stack:
        for name, gain in deltas.items():

            def add(_: Any, inputs: tuple[Tensor], output: Tensor, gain: Any = gain) -> Tensor:
                if output.dtype == inputs[0].dtype == torch.float32 and factor == 1:
                    return gain.added_to(output, inputs[0])
                # In float32, and outside of the scaled gradients: these weights are trained.
                gained = gain(scale_gradient(inputs[0].float(), factor))
                return output + scale_gradient(gained, 1 / factor).to(output)

            hook = unet.get_submodule(name).register_forward_hook(add)
            stack.callback(hook.remove)
        yield


@contextmanager
def checkpointed_blocks(
    unet: torch.nn.Module, deltas: Mapping[str, Any], factor: float, device: torch.device
) -> Iterator[None]:
    """Within the block the U-Net's parts keep their inputs only, for gradients afterwards."""
    lent = [True]  # whether the U-Net around has its weights and gains lent out just now
    with ExitStack() as stack:
        stack.callback(lent.clear)
        for path, part in unet.named_modules():
            if not isinstance(part, (ResBlock, SpatialTransformer)):
                continue
            own = {n[len(path) + 1 :]: g for n, g in deltas.items() if n.startswith(f"{path}.")}
            part.forward = _kept_as_inputs(part, own, factor, device, lent)
            stack.callback(part.__dict__.pop, "forward")
        yield


def _kept_as_inputs(
    part: torch.nn.Module, own: Mapping[str, Any], factor: float, device: torch.device, lent: list
) -> Callable[..., Tensor]:
    plain, weights = part.forward, autograd_weights(part, device)

    def run(*inputs: Any, **options: Any) -> Tensor:
        # The host writes into its options as it goes: each time starts from what it was given.
        options = {k: dict(v) if isinstance(v, dict) else v for k, v in options.items()}
        inputs = tuple(dict(v) if isinstance(v, dict) else v for v in inputs)
        if lent:
            return plain(*inputs, **options)
        with joined(part, own, factor):
            return torch.func.functional_call(part, weights, inputs, options)

    def forward(*inputs: Any, **options: Any) -> Tensor:
        given = [{**v} if isinstance(v, dict) else v for v in inputs]
        copied = {k: {**v} if isinstance(v, dict) else v for k, v in options.items()}
        return checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False, **copied)

    return forward


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The tensor itself, whose gradient will be multiplied by the factor."""
    return tensor if factor == 1 else _Scale.apply(tensor, factor)


def _gradient_factor(noisy: Tensor) -> float:
    """Brings a mean loss's gradients, about 1 / elements, into float16's range."""
    return 2.0 ** max(0, math.floor(math.log2(noisy.numel())) - 3)


# --- what the host says about a model ---------------------------------------------------------


def check_model(model: Any, text_width: int) -> None:
    """Raise ImageToPromptError unless `model` is an SD 1.x model to train for, LoRAs or none."""
    check_sd1(model, text_width)
    prediction_of(model.get_model_object("model_sampling"))
    if model.get_attachment(ATTACHMENT) is not None:
        raise ImageToPromptError(
            "a MODEL without a projection's changes",
            "one from Apply Projection, or from an earlier training",
            "Connect the checkpoint's MODEL: the projection brings its changes (socket model).",
        )


def check_sd1(model: Any, text_width: int) -> None:
    """Raise ImageToPromptError unless `model` is that of SD 1.x, for this text encoder."""
    unet = getattr(getattr(model, "model", None), "diffusion_model", None)
    found = cross_kv(layers_of(model)) if unet is not None else {}
    widths = {shape[1] for shape in found.values()}
    name = type(model.model).__name__ if unet is not None else type(model).__name__
    if widths != {text_width}:
        got = f"one with contexts of {sorted(widths)}" if widths else "one without such"
        raise ImageToPromptError(
            f"a MODEL whose cross-attentions read a text encoder of width {text_width} (SD 1.x)",
            f"{got} ({name})",
            _SD1_ADVICE,
        )
    if getattr(unet, "num_classes", None) is not None or unet.in_channels != 4:
        raise ImageToPromptError(
            "a plain SD 1.x MODEL of 4 latent channels",
            f"{name} of {unet.in_channels} channels, with more inputs than SD 1.x has",
            _SD1_ADVICE,
        )


def layers_of(model: Any) -> dict[str, tuple[int, int]]:
    """(O, C) of every linear map in a transformer block, by its name in SD 1.x checkpoints."""
    return {
        name: tuple(weight.shape)
        for name, module in model.model.diffusion_model.named_modules()
        if name.endswith(TARGET_MODULES) and (weight := getattr(module, "weight", None)) is not None
    }


def prediction_of(sampling: Any) -> str:
    """Either "epsilon" or "v", as the host's model_sampling has it. Raises ImageToPromptError."""
    kinds = {comfy.model_sampling.EPS: "epsilon", comfy.model_sampling.V_PREDICTION: "v"}
    methods = {kind.calculate_denoised: name for kind, name in kinds.items()}
    name = methods.get(type(sampling).calculate_denoised)
    if name is None or not isinstance(getattr(sampling, "sigmas", None), Tensor):
        raise ImageToPromptError(
            "a MODEL that predicts noise (epsilon) or v", type(sampling).__name__, _SD1_ADVICE
        )
    return name


def without_dynamic_weights(model: Any) -> Any:
    """The model itself or, where the host streams its weights on demand (0.33), a whole one."""
    dynamic = getattr(model, "is_dynamic", None)
    if dynamic is None or not dynamic():
        return model
    if model.cached_patcher_init is None:
        raise ImageToPromptError(
            "a MODEL from one of ComfyUI's own loaders",
            "one that cannot be loaded again",
            "Load the checkpoint with Load Checkpoint (socket model).",
        )
    return model.clone(disable_dynamic=True)


def _compute_type(base: Any) -> torch.dtype:
    return base.manual_cast_dtype or base.get_dtype()


def _transformer_options(patcher: Any) -> dict[str, Any]:
    """The model's own options, with a kernel of attention that has a gradient."""
    options = dict(patcher.model_options.get("transformer_options", {}))

    def differentiable(_: Any, *args: Any, **kwargs: Any) -> Tensor:
        return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)

    return {**options, "optimized_attention_override": differentiable}
