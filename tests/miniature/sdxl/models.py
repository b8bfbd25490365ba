"""The narrow models of SDXL's parts that the drawings' miniature does not have.

The second text encoder, an "open" CLIP as OpenCLIP's bigG is: text 1280 / 20, exact GELU, another
padding token; and its vision encoder, 1664 / 16 wide. The U-Net: SDXL's over 5, with linear
projections, text states of both encoders side by side, and an embedding of the pooled text and the
sizes. First text encoder ("L") and autoencoder are those of the drawings.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ..drawings import models as drawings
from ..drawings.tokenizer import END, LENGTH, START, load_table

WEIGHTS = Path(__file__).with_name("weights")
L_WIDTH, G_WIDTH = drawings.TEXT_WIDTH, 64
CONTEXT_WIDTH = L_WIDTH + G_WIDTH
SIZES, SIZE_WIDTH = 6, 256  # sizes: height, width, crop top, crop left, target height, width
PAD = 0  # the open CLIP's padding token; it stands for "!"
OPEN_IDS = [PAD, *sorted(load_table().values()), START, END]


def open_clip_model() -> CLIPTextModelWithProjection:
    """The second text encoder, "G": three layers, four heads of 16 channels, joint space 64."""
    end = len(OPEN_IDS) - 1
    config = CLIPTextConfig(
        hidden_size=G_WIDTH, intermediate_size=4 * G_WIDTH, num_attention_heads=4,
        num_hidden_layers=3, hidden_act="gelu", projection_dim=G_WIDTH,
        vocab_size=len(OPEN_IDS), max_position_embeddings=LENGTH,
        bos_token_id=end - 1, eos_token_id=end, pad_token_id=0,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


def open_vision_model() -> CLIPVisionModelWithProjection:
    """The open CLIP's vision encoder: three layers, eight heads of 13 channels, joint space 64."""
    config = CLIPVisionConfig(
        hidden_size=104, intermediate_size=4 * 104, num_attention_heads=8, num_hidden_layers=3,
        hidden_act="gelu", projection_dim=G_WIDTH, image_size=224, patch_size=14,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config)


def unet_model() -> UNet2DConditionModel:
    """SDXL's U-Net over 5 with two levels of one block each, heads of 16 channels."""
    return UNet2DConditionModel(
        sample_size=drawings.LATENT_SIDE,
        block_out_channels=(drawings.UNET_WIDTH, 2 * drawings.UNET_WIDTH),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=CONTEXT_WIDTH,
        attention_head_dim=(4, 8),  # diffusers' historical name: it is the number of heads
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_WIDTH,
        projection_class_embeddings_input_dim=G_WIDTH + SIZES * SIZE_WIDTH,
    )


BUILDERS = {"open_clip": open_clip_model, "open_vision": open_vision_model, "unet": unet_model}
CHECKPOINT = ("open_clip", "unet")  # the parts that an SDXL checkpoint holds


def save(model: nn.Module, part: str, folder: Path = WEIGHTS, **facts: str) -> None:
    """Write the weights of a part as fp16 safetensors, with facts as metadata."""
    drawings.save(model, part, folder, **facts)


def load(part: str, folder: Path = WEIGHTS) -> nn.Module:
    """The narrow model of a part in fp32, frozen, in evaluation mode."""
    model = BUILDERS[part]()
    drawings.adopt(model, folder / f"{part}.safetensors")
    return model.eval().requires_grad_(False)


def padded_with_zero(ids: Tensor) -> Tensor:
    """CLIP ids (N, 77) with everything behind the first end token made the open CLIP's pads."""
    behind = (ids == END).cumsum(dim=-1) > 1
    return ids.masked_fill(behind, PAD)


def compact(ids: Tensor) -> Tensor:
    """Ids of `padded_with_zero` -> rows of the open CLIP's token table, same shape."""
    return torch.searchsorted(torch.tensor(OPEN_IDS), ids.contiguous())
