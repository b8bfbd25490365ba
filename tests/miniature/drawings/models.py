"""The narrow models: their configurations, and reading and writing their weights.

Every width is that of SD 1.5 or CLIP ViT-L/14 over a whole number, so that the models can be
widened exactly: text 768 / 8, vision 1024 / 8, U-Net 320 / 5, TAESD 64 / 4.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from .tokenizer import END, LENGTH, START, load_table

WEIGHTS = Path(__file__).with_name("weights")
TEXT_WIDTH, VISION_WIDTH, UNET_WIDTH, TAESD_WIDTH = 96, 128, 64, 16
LATENT_SIDE = 12

# The token table has one row per word of the world, then the start and end tokens.
CLIP_IDS = [*sorted(load_table().values()), START, END]


def clip_model() -> CLIPModel:
    """CLIP with three layers in each tower, ViT-L/14's patches and activation."""
    common = {"num_hidden_layers": 3, "hidden_act": "quick_gelu"}
    end = len(CLIP_IDS) - 1
    text = common | {
        "hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH, "num_attention_heads": 12,
        "vocab_size": len(CLIP_IDS), "max_position_embeddings": LENGTH,
        "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = common | {
        "hidden_size": VISION_WIDTH, "intermediate_size": 4 * VISION_WIDTH,
        "num_attention_heads": 16, "patch_size": 14, "image_size": 224,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH)
    return CLIPModel(config)


def taesd_model() -> AutoencoderTiny:
    """TAESD with 16 channels in place of 64."""
    widths = (TAESD_WIDTH,) * 4
    return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def unet_model() -> UNet2DConditionModel:
    """SD 1.5's U-Net over 5, with two levels of one block each, attention in all of them."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(UNET_WIDTH, 2 * UNET_WIDTH),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,  # diffusers' historical name: it is the number of heads
    )


class Judge(nn.Module):
    """A small convolutional classifier of thing and artist; it is trained apart and only judges.

    pictures (N, 3, 96, 96) in [0, 1] -> logits of things (N, 24) and of artists (N, 8)
    """

    def __init__(self, things: int = 24, artists: int = 8) -> None:
        super().__init__()
        widths, blocks = (3, 32, 64, 96, 160), []
        for before, after in pairwise(widths):
            blocks += [
                nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()
            ]  # fmt: skip
        self.features = nn.Sequential(*blocks)
        self.heads = nn.Linear(2 * widths[-1], things + artists)
        self.sizes = (things, artists)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.features(2 * pictures - 1)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=-1)
        things, artists = self.heads(pooled).split(self.sizes, dim=-1)
        return things, artists


BUILDERS = {"clip": clip_model, "taesd": taesd_model, "unet": unet_model, "judge": Judge}


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
    adopt(model, folder / f"{part}.safetensors")
    return model.eval().requires_grad_(False)


def adopt(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into a model; ValueError where they do not fit."""
    state = {name: value.float() for name, value in load_file(path).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or unexpected:
        raise ValueError(f"{path.name}: missing {missing}, unexpected {unexpected}")


def facts_of(part: str, folder: Path = WEIGHTS) -> dict[str, str]:
    """The metadata of a part's weights."""
    with safe_open(folder / f"{part}.safetensors", "pt") as file:
        return file.metadata()


def latent_scale(folder: Path = WEIGHTS) -> float:
    """Standard deviation of TAESD's latents over the world, from the weights' metadata."""
    return float(facts_of("taesd", folder)["latent_std"])


def compact(ids: torch.Tensor) -> torch.Tensor:
    """CLIP ids -> rows of the token table, same shape."""
    return torch.searchsorted(torch.tensor(CLIP_IDS), ids.contiguous())
