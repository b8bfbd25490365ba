"""The narrow models: their configurations, and reading and writing their weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from .world.tokenizer import END, LENGTH, START, Tokenizer

WEIGHTS = Path(__file__).with_name("weights")
TEXT_WIDTH, VISION_WIDTH, UNET_WIDTH, TAESD_WIDTH = 96, 128, 64, 16

# The committed token table has one row per word of the world, then the start and end tokens.
CLIP_IDS = [*sorted(Tokenizer().ids.values()), START, END]
SECOND_SIDE = 64


def clip_model() -> CLIPModel:
    """The conditioning CLIP: SD 1.5's text width over 8 and ViT-L/14's width over 8."""
    return CLIPModel(_clip_config(TEXT_WIDTH, 12, VISION_WIDTH, 16, 3, patch=14, side=224))


def second_clip_model() -> CLIPModel:
    """The judging CLIP: another architecture, trained apart, used for similarity only."""
    return CLIPModel(_clip_config(64, 4, 64, 4, 3, patch=8, side=SECOND_SIDE))


def _clip_config(
    text: int, text_heads: int, vision: int, heads: int, layers: int, patch: int, side: int
) -> CLIPConfig:
    common = {"num_hidden_layers": layers, "hidden_act": "quick_gelu"}
    end = len(CLIP_IDS) - 1
    text_config = common | {
        "hidden_size": text,
        "intermediate_size": 4 * text,
        "num_attention_heads": text_heads,
        "vocab_size": len(CLIP_IDS),
        "max_position_embeddings": LENGTH,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision_config = common | {
        "hidden_size": vision,
        "intermediate_size": 4 * vision,
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": side,
    }
    return CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=text)


def taesd_model() -> AutoencoderTiny:
    """TAESD with 16 channels in place of 64."""
    widths = (TAESD_WIDTH,) * 4
    return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def unet_model() -> UNet2DConditionModel:
    """SD 1.5's U-Net over 5, with two levels of one block each, attention in all of them."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(UNET_WIDTH, 2 * UNET_WIDTH),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,  # diffusers' historical name: it is the number of heads
    )


BUILDERS = {
    "clip": clip_model,
    "second": second_clip_model,
    "taesd": taesd_model,
    "unet": unet_model,
}


def save(model: nn.Module, part: str, folder: Path = WEIGHTS, **facts: str) -> None:
    """Write the weights of a part as fp16 safetensors, with facts as metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {
        name: value.detach().half().contiguous()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    target = folder / f"{part}.safetensors"
    scratch = target.with_suffix(".partial")
    save_file(half, scratch, metadata={"part": part, **facts})
    scratch.replace(target)


def load(part: str, folder: Path = WEIGHTS) -> nn.Module:
    """The narrow model of a part in fp32, frozen, in evaluation mode."""
    model = BUILDERS[part]()
    stored = load_file(folder / f"{part}.safetensors")
    state = {name: value.float() for name, value in stored.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or unexpected:
        raise ValueError(f"{part}: weights do not fit, missing {missing}, unexpected {unexpected}")
    return model.eval().requires_grad_(False)


def latent_scale(folder: Path = WEIGHTS) -> float:
    """Standard deviation of TAESD's latents over the world, from the weights' metadata."""
    from safetensors import safe_open

    with safe_open(folder / "taesd.safetensors", "pt") as file:
        return float(file.metadata()["latent_std"])


def compact(ids: torch.Tensor) -> torch.Tensor:
    """CLIP ids -> rows of the committed token table, same shape."""
    return torch.searchsorted(torch.tensor(CLIP_IDS), ids.contiguous())
