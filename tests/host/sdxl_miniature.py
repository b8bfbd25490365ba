"""The trained miniature of SDXL in the host: its file, made once, as core's loaders give it."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import torch
from torch import Tensor

from image_to_prompt.tests.miniature.sdxl import widen
from image_to_prompt.tests.miniature.sdxl.encoders import Prompts
from image_to_prompt.tests.miniature.sdxl.models import L_WIDTH
from image_to_prompt.tests.miniature.sdxl.widen_text import K_G, K_L


def load() -> SimpleNamespace:
    """MODEL, CLIP and VAE of the checkpoint, and what the host logged while it loaded them."""
    import folder_paths

    import nodes

    path = widen.write()
    folder_paths.add_model_folder_path("checkpoints", str(path.parent))
    log, records = logging.getLogger(), []
    listener = logging.Handler()
    listener.emit = lambda record: records.append(record.getMessage())
    log.addHandler(listener)
    try:
        model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(path.name)
    finally:
        log.removeHandler(listener)
    return SimpleNamespace(model=model, clip=clip, vae=vae, log=records)


def wide(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """The host's conditioning (N, 77, 2048) and pooled (N, 1280) of narrow prompts."""
    parts = prompts.context[..., :L_WIDTH], prompts.context[..., L_WIDTH:]
    context = [part.repeat_interleave(k, dim=-1) for part, k in zip(parts, (K_L, K_G), strict=True)]
    return torch.cat(context, dim=-1), prompts.pooled.repeat_interleave(K_G, dim=-1)
