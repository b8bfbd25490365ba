"""A diffusers U-Net as a `Denoiser`. Objects are taken as they come: diffusers is not imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters.unet_deltas import cross_kv, is_target
from ..diffusion.denoiser import LinearDelta
from ..errors import ImageToPromptError

_PIXELS = 8  # of a picture's side for each latent cell


class DiffusersDenoiser:
    """A UNet2DConditionModel with the noise schedule of its scheduler.

    scheduler: anything with `alphas_cumprod` (T,) and `config.prediction_type`. The deltas are
    added by forward hooks, which are removed when `predict` returns. U-Nets of SD 1.x, SD 2.x and
    SDXL; the latter are given pooled text and sizes as `added_cond_kwargs`.
    Raises ImageToPromptError for a U-Net without cross-attention, or another prediction.
    """

    def __init__(self, unet: Any, scheduler: Any) -> None:
        layers = unet.config.layers_per_block
        self.unet = unet
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.detach().clone()
        self._modules = {
            checkpoint_name(path, layers): module
            for path, module in unet.named_modules()
            if is_target(path)
        }
        self.linear_shapes: Mapping[str, tuple[int, int]] = {
            name: tuple(module.weight.shape) for name, module in self._modules.items()
        }
        self.cross_kv_shapes: Mapping[str, tuple[int, int]] = cross_kv(self.linear_shapes)
        kind = getattr(scheduler.config, "prediction_type", "epsilon")
        self.prediction_type: str = {"v_prediction": "v"}.get(kind, kind)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: Tensor,
        deltas: Mapping[str, LinearDelta],
        pooled: Tensor | None = None,
    ) -> Tensor:
        """See `Denoiser.predict`."""
        dtype = next(self.unet.parameters()).dtype
        added = {}
        if pooled is not None:
            added = {"added_cond_kwargs": _added_conditions(noisy, pooled.to(dtype))}
        with self._delta_hooks(deltas):
            output = self.unet(noisy.to(dtype), timesteps, context.to(dtype), **added)
        return output.sample.float()

    @contextmanager
    def _delta_hooks(self, deltas: Mapping[str, LinearDelta]) -> Iterator[None]:
        unknown = sorted(set(deltas) - set(self._modules))
        if unknown:
            raise ImageToPromptError(
                "names of this U-Net's linear maps",
                f"{', '.join(unknown[:3])}",
                "Use the projection with the model family it was fitted on.",
            )
        hooks = []
        try:
            for name, delta in deltas.items():
                hooks.append(self._modules[name].register_forward_hook(_adding(delta)))
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _added_conditions(noisy: Tensor, pooled: Tensor) -> dict[str, Tensor]:
    """SDXL's `text_embeds` (B, P) and `time_ids` (B, 6) of an uncropped picture of this size."""
    height, width = (_PIXELS * side for side in noisy.shape[2:])
    sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
    return {"text_embeds": pooled, "time_ids": sizes.to(pooled.device).expand(len(pooled), -1)}


def _adding(delta: LinearDelta) -> Any:
    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + delta(inputs[0])

    return hook


def checkpoint_name(path: str, layers_per_block: int) -> str:
    """The name in checkpoints of a linear map of a diffusers U-Net, of SD 1.x, SD 2.x or SDXL.

    `down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k` is
    `input_blocks.2.1.transformer_blocks.0.attn2.to_k` at two layers a block.
    """
    stride = layers_per_block + 1
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", path):
        return f"middle_block.1.{match[1]}"
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", path):
        kind, block, index = match[1], int(match[2]), int(match[3])
        # Block 0 of the way down is the first convolution.
        place = stride * block + index + (kind == "down")
        return f"{'input' if kind == 'down' else 'output'}_blocks.{place}.1.{match[4]}"
    raise ImageToPromptError(
        "a linear map in a block of SD 1.x's, SD 2.x's or SDXL's U-Net",
        path,
        "Use the U-Net of such a model.",
    )
