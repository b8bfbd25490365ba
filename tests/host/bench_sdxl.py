"""What a picture's prompt costs with SDXL, in one host: the rows of `make bench` for that family.

    python tests host.bench_sdxl --host <ComfyUI> --models <folder of the widened miniatures>

The text encoders and the U-Net are the miniature of SDXL at SDXL's shapes, the vision encoder is
the miniature's ViT-L/14. Speed does not depend on what the readings say: they are of random
captions. Prints one JSON line at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from image_to_prompt.projection import REFINE, SDXL, Projection, TrainingImages, load_file
from image_to_prompt.tests.host.bench_in_host import (
    CLIP_FILE,
    in_turns,
    prompt_rows,
    row,
    seconds,
)
from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.tests.host.random_readings import readings_of

CHECKPOINTS = "miniature-sdxl-*.ckpt"
STEPS, SIDE = 1, 16  # of sampling; of latents
# Of a training step: noisy pictures, steps before the measured ones, side of the latents. What a
# step costs beside the U-Net does not depend on the side: a larger one is nearer to SDXL's 128.
BATCH, WARM, TRAINING_SIDE = 2, 2, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    loaded = load(options.models)
    sockets = (loaded.model, loaded.clip, loaded.vision, loaded.projection)
    rows = prompt_rows(*sockets, options.repeats, STEPS, SIDE, "SDXL: ")
    rows |= reading_row(loaded.projection, options.repeats)
    print(json.dumps(rows | training_row(loaded, options.repeats)))


def load(models: Path) -> SimpleNamespace:
    """What all rows start from. Normal tensors: a bare backward pass needs them."""
    import comfy.clip_vision
    import comfy.sd

    import image_to_prompt

    asyncio.run(image_to_prompt.comfy_entrypoint())
    newest = max(models.glob(CHECKPOINTS), key=lambda path: path.stat().st_mtime)
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(newest))
    return SimpleNamespace(
        model=model,
        clip=clip,
        vae=vae,
        vision=comfy.clip_vision.load(str(models / CLIP_FILE)),
        projection=load_file(models / CLIP_FILE).with_readings(readings_of(SDXL, 1280)),
    )


def reading_row(projection: Projection, repeats: int) -> dict:
    """What a picture costs after its vision encoder."""
    v = torch.randn(1, 768)
    taken = [seconds(lambda: projection.readings.apply(v)) for _ in range(repeats + 1)]
    return {"SDXL: readings of a picture's embedding, seconds": row(taken[1:], "<= 0.01")}


def training_row(loaded: SimpleNamespace, repeats: int) -> dict:
    """A step of Online Refine against one forward and backward of the same U-Net."""
    session = sys.modules["image_to_prompt.nodes.training.session"]
    config = next(iter(REFINE.values()))
    # One noisy picture and one kept prompt, whose teacher prediction the first step caches.
    kept = replace(config.preservation, preserve_pairs=1, preserve_cache=1)
    noise = replace(config.noise, timesteps_per_image=BATCH - kept.preserve_pairs)
    config = replace(config, noise=noise, preservation=kept)
    sockets = (loaded.model, loaded.vae, loaded.clip, loaded.vision)
    models = session.Models(*sockets, loaded.projection, "fast")
    alone = TrainingImages((torch.randn(4, TRAINING_SIDE, TRAINING_SIDE),), torch.randn(1, 768))
    texts = [f"a {colour} star" for colour in ("red", "green", "blue", "black")]
    trainer = session.trainer_of(models, config, 0, 30, alone, preserved_texts=texts)
    for _ in range(WARM):
        trainer.step()
    unet = loaded.model.model.diffusion_model
    noisy, times = torch.randn(BATCH, 4, TRAINING_SIDE, TRAINING_SIDE), torch.full((BATCH,), 500.0)
    pooled = torch.randn(BATCH, 2816)

    def bare():
        context = torch.randn(BATCH, 77, 2048, requires_grad=True)
        unet(noisy, times, context=context, y=pooled).square().mean().backward()

    unet.requires_grad_(False)
    ratios = in_turns(trainer.step, bare, repeats)
    return {f"SDXL: training step of {BATCH} / bare forward and backward": row(ratios, "<= 1.15")}


if __name__ == "__main__":
    main()
