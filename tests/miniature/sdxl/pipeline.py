"""The miniature as diffusers' SDXL pipeline: an independent check of the host's path."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from ..drawings import models as drawings
from ..drawings.world import SIDE
from ..pipeline import scheduler, start
from . import models
from .encoders import Prompts


def pipeline(folder: Path = models.WEIGHTS) -> StableDiffusionXLPipeline:
    """The narrow models as a pipeline that takes `prompt_embeds` and `pooled_prompt_embeds`."""
    taesd = drawings.load("taesd")
    taesd.register_to_config(scaling_factor=1 / drawings.latent_scale())
    pipe = StableDiffusionXLPipeline(
        vae=taesd, unet=models.load("unet", folder), scheduler=scheduler(), text_encoder=None,
        text_encoder_2=None, tokenizer=None, tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def generate(
    pipe: StableDiffusionXLPipeline, prompts: Prompts, negative: Prompts, noise: Tensor,
    steps: int = 20, guidance: float = 3.0,
) -> Tensor:  # fmt: skip
    """Pictures (N, 3, 96, 96) in [0, 1] of N prompts; noise (N, 4, 12, 12)."""
    negative = negative.expand(len(prompts))
    return pipe(
        prompt_embeds=prompts.context, pooled_prompt_embeds=prompts.pooled,
        negative_prompt_embeds=negative.context, negative_pooled_prompt_embeds=negative.pooled,
        latents=start(pipe, noise, steps), num_inference_steps=steps, guidance_scale=guidance,
        height=SIDE, width=SIDE, output_type="pt",
    ).images  # fmt: skip
