"""SD 2.x's, SDXL's and the refiner's text encoders in the host's own classes, three layers deep.

Random weights of the true widths: wiring only, nothing about pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from image_to_prompt.tests.host.small_models import VISION

LAYERS = 3
WORDS = ("cat", "dog", "tree", "river", "red", "castle", "old", "small", "night", "snow")
# Just above what readings need: each is encoded by two encoders of true width.
CAPTIONS = [
    f"a {WORDS[i % 10]} {WORDS[(3 * i + i // 10) % 10]} and a {WORDS[(7 * i + i // 30) % 10]}"
    for i in range(112)
]


def sdxl(seed: int = 1) -> Any:
    """The two encoders of SDXL."""
    from comfy import sdxl_clip

    clip = _clip(sdxl_clip.SDXLClipModel, sdxl_clip.SDXLTokenizer)
    model = clip.cond_stage_model
    _fill(model.clip_l, seed, projected=False)
    _fill(model.clip_g, seed + 1)
    return clip


def refiner(base: Any) -> Any:
    """The refiner's encoder, with the weights of an SDXL clip's second one."""
    from comfy import sdxl_clip

    clip = _clip(sdxl_clip.SDXLRefinerClipModel, sdxl_clip.SDXLTokenizer)
    clip.cond_stage_model.clip_g.load_state_dict(base.cond_stage_model.clip_g.state_dict())
    return clip


def sd2(seed: int = 5) -> Any:
    """The encoder of SD 2.x."""
    from comfy.text_encoders import sd2_clip

    clip = _clip(sd2_clip.SD2ClipModel, sd2_clip.SD2Tokenizer)
    _fill(clip.cond_stage_model.clip_h, seed)
    return clip


def sd3() -> Any:
    """The tokenizer of SD3, which is what tells it apart, on a model without weights."""
    from comfy.text_encoders import sd3_clip

    return _clip(lambda **_: torch.nn.Module(), sd3_clip.SD3Tokenizer)


def vision(width: int, folder: Path, seed: int = 11) -> Any:
    """A vision encoder that ends in a joint space of this width."""
    import comfy.clip_vision

    config = folder / f"vision-{width}.json"
    config.write_text(json.dumps({**VISION, "projection_dim": width}))
    model = comfy.clip_vision.ClipVisionModel(str(config))
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.model.state_dict().items():
        if weight.is_floating_point():
            weight.copy_(_random(name, weight, draw))
    return model


def _clip(model: Any, tokenizer: Any) -> Any:
    import comfy.sd

    if not hasattr(model, "mro"):  # a function in place of a class
        made = SimpleNamespace(tokenizer=tokenizer(), layer_idx=None)
        made.tokenize = made.tokenizer.tokenize_with_weights
        made.cond_stage_model = model()
        made.encode_from_tokens_scheduled = None
        return made
    shallow = {"num_hidden_layers": LAYERS}
    options = {f"clip_{key}_model_config": shallow for key in ("l", "g", "h")}
    target = SimpleNamespace(params={}, clip=model, tokenizer=tokenizer)
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    clip.cond_stage_model.requires_grad_(False)
    return clip


def _fill(encoder: Any, seed: int, projected: bool = True) -> None:
    """projected: False leaves the text projection as the host's loader of SDXL does."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in encoder.transformer.state_dict().items():
        if name == "text_projection.weight":
            flawed = torch.full_like(weight, float("nan"))
            weight.copy_(_projection(len(weight), draw) if projected else flawed)
        else:
            weight.copy_(_random(name, weight, draw))


def _random(name: str, like: Tensor, draw: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=draw)
    return 1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.04 * noise


def _projection(width: int, draw: torch.Generator) -> Tensor:
    """Flat but for a tail, as trained ones are."""
    turned = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    return turned * torch.linspace(0.7, 0.05, width)
