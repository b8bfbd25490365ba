"""A small set of models in the real host, on which the training nodes run in seconds.

Random weights: these prove wiring, nothing about pictures.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from image_to_prompt.projection import (
    DeepPromptsConfig,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    Projection,
    ResidualConfig,
    TrainingConfig,
    from_clip_model,
)
from image_to_prompt.tests.host import small_models, small_unet

# One noisy picture a step: the wiring is the same, and a step takes a second.
_SINGLE = NoiseConfig(timesteps_per_image=1)
QUICK = TrainingConfig(1e-2, ResidualConfig(rank=2), LoRAConfig(rank=2), noise=_SINGLE)
QUICK_FULL = replace(QUICK, lora=LoRAConfig(rank=0), deep_prompts=DeepPromptsConfig())
# As the default presets: gradient initialisation, cached sets of prompt preservation.
QUICK_BLOCKS = TrainingConfig(
    1e-3,
    lora=LoRAConfig("transformer blocks", 2, down_lr_scale=1.0, gradient_init_batches=1),
    noise=_SINGLE,
    preservation=PreservationConfig(preserve_pairs=1, preserve_cache=2, prior_batch_size=1),
)
PRESET = "embedding + cross-attention"


@dataclass
class Tools:
    host: SimpleNamespace
    model: Any
    vae: Any
    clip: Any
    clip_vision: Any
    projection: Projection
    picture: Tensor

    def sockets(self, **changed: Any) -> dict[str, Any]:
        given = {
            "model": self.model,
            "vae": self.vae,
            "clip": self.clip,
            "clip_vision": self.clip_vision,
            "projection": self.projection,
            "image": self.picture,
        }
        return {**given, **changed}

    def refine(self, **changed: Any) -> tuple:
        widgets = {"steps": 2, "preset": PRESET, "learning_rate": 0.0, "seed": 1}
        with torch.inference_mode():
            node = self.host.classes["OnlineRefine"]
            return node.execute(**{**self.sockets(), **widgets, **changed}).args

    def fit(self, **changed: Any) -> tuple:
        pictures = [torch.rand(1, 64, 64 + 8 * n, 3, generator=generator(n)) for n in range(3)]
        widgets = {"epochs": 2, "preset": PRESET, "learning_rate": 0.0, "seed": 1, "held_out": 0.3}
        given = {**self.sockets(), **widgets, **changed}
        images = given.pop("image") if "image" in changed else pictures
        with torch.inference_mode():
            node = self.host.classes["FitProjection"]
            lists = {name: [value] for name, value in given.items() if name != "image"}
            return node.execute(image=images, **lists).args

    def embed(self, projection: Projection, picture: Tensor | None = None) -> Tensor:
        with torch.inference_mode():
            node = self.host.classes["ImageToPromptEmbed"]
            picture = self.picture if picture is None else picture
            return node.execute(
                projection,
                self.clip,
                self.clip_vision,
                picture,
                "",
                0.6,
                1.0,
                "one prompt per image",
                "center",
            ).args[0][0][0]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_tools(host: SimpleNamespace) -> Tools:
    reference = small_models.reference_clip(3)
    with torch.inference_mode():
        return Tools(
            host=host,
            model=small_unet.host_model(small_unet.unet_state(small_unet.SMALL)),
            vae=small_unet.host_vae(),
            clip=small_models.host_clip(reference),
            clip_vision=small_models.host_clip_vision(reference, host.folders),
            projection=from_clip_model(reference),
            picture=torch.rand(1, 64, 64, 3, generator=generator(9)),
        )


def predicted(model: Any) -> Tensor:
    """What the host gives for a fixed input of this MODEL, patches included."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        noisy = torch.randn(1, 4, 8, 8, generator=generator(1))
        context = torch.randn(1, 77, 768, generator=generator(2))
        return model.model.apply_model(noisy, torch.tensor([2.0]), c_crossattn=context)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def leftovers(*modules: torch.nn.Module) -> list[str]:
    """Gradients, hooks, borrowed methods and strange weights that a module still has."""
    found = []
    for module in modules:
        for name, part in module.named_modules():
            found += [f"{name}: hooks"] if part._forward_hooks else []
            found += [f"{name}: forward"] if "forward" in vars(part) else []
            for key, weight in part._parameters.items():
                wrong = weight is not None and not isinstance(weight, torch.nn.Parameter)
                found += [f"{name}.{key} is lent"] if wrong else []
                if weight is not None and not weight.is_inference() and weight.grad is not None:
                    found.append(f"{name}.{key} has a gradient")
    return found


def alive_in_graphs(collect: bool = True) -> int:
    """How many tensors of autograd graphs exist, garbage in cycles not counted if collected."""
    if collect:
        gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) in (Tensor, torch.nn.Parameter)]
    return sum(each.grad_fn is not None or each.grad is not None for each in tensors)


class Stop(Exception):
    """Something that nobody expects."""


@contextmanager
def ending(tools, step: int, how: str):
    """Ends the training within step `step` (from 0): in the forward or the backward pass."""
    import comfy.model_management

    errors = {
        "interrupt": comfy.model_management.InterruptProcessingException,
        "out of memory": torch.OutOfMemoryError,
    }
    kind = errors.get(how.removesuffix(" in backward"), Stop)
    count = iter(range(1000))

    def fail(_):
        raise kind("as a test")

    def hook(_, __, output):
        if next(count) != step:
            return
        if how.endswith("backward"):
            output.register_hook(fail)
        elif how == "interrupt":
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
        else:
            fail(None)

    handle = tools.model.model.diffusion_model.out.register_forward_hook(hook)
    try:
        with pytest.raises(kind):
            yield
    finally:
        handle.remove()
