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

from image_to_prompt.tests.host.bench_in_host import CLIP_FILE, in_turns, row, seconds
from image_to_prompt.tests.host.in_process import make_importable

CHECKPOINTS = "miniature-sdxl-*.ckpt"
TEXT, STEPS, SIDE = "a red star on a blue ground", 2, 16  # of latents
BATCH, SMALL, WARM = 8, 16, 9  # noisy pictures in a training step; its latents' side; before it


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
    rows = prompt_rows(loaded, options.repeats) | training_row(loaded, options.repeats)
    print(json.dumps(rows))


def load(models: Path) -> SimpleNamespace:
    """What both kinds of rows start from. Normal tensors: a bare backward pass needs them."""
    import comfy.clip_vision
    import comfy.sd
    import torch

    import image_to_prompt
    from image_to_prompt.projection import load_file

    asyncio.run(image_to_prompt.comfy_entrypoint())
    newest = max(models.glob(CHECKPOINTS), key=lambda path: path.stat().st_mtime)
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(newest))
    return SimpleNamespace(
        sdxl=SimpleNamespace(model=model, clip=clip, vae=vae),
        vision=comfy.clip_vision.load(str(models / CLIP_FILE)),
        projection=load_file(models / CLIP_FILE).with_readings(random_readings()),
        picture=torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(0)),
    )


def prompt_rows(loaded: SimpleNamespace, repeats: int) -> dict:
    """Encoding, sampling, and what a picture costs beside its vision encoder."""
    import torch

    import nodes as core

    embed = sys.modules["image_to_prompt.nodes.embed"].ImageToPromptEmbed
    sdxl, vision, projection = loaded.sdxl, loaded.vision, loaded.projection
    picture = loaded.picture
    with torch.inference_mode():

        def ours():
            return embed.execute(
                projection, sdxl.clip, vision, picture, TEXT, 0.6, 1.0, "one prompt per image",
                "center",
            ).args[0]  # fmt: skip

        def theirs():
            vision.encode_image(picture)
            return core.CLIPTextEncode().encode(sdxl.clip, TEXT)[0]

        latent = {"samples": torch.zeros(1, 4, SIDE, SIDE)}

        def sample(positive):
            core.common_ksampler(
                sdxl.model, 1, STEPS, 7.5, "euler", "normal", positive, theirs_once, latent
            )

        ours_once, theirs_once = ours(), theirs()
        v = torch.randn(1, 768)
        apply = [seconds(lambda: projection.readings.apply(v)) for _ in range(repeats + 1)]
        return {
            "SDXL: ImageToPromptEmbed / (CLIPVisionEncode + CLIPTextEncode)": row(
                in_turns(ours, theirs, repeats), "<= 1.05"
            ),
            "SDXL: sampling step: our CONDITIONING / a text prompt": row(
                in_turns(lambda: sample(ours_once), lambda: sample(theirs_once), repeats),
                "1.00 +- 0.02",
            ),
            "SDXL: readings of a picture's embedding, seconds": row(apply[1:], "<= 0.01"),
        }


def training_row(loaded: SimpleNamespace, repeats: int) -> dict:
    """A step of Online Refine against one forward and backward of the same U-Net."""
    import torch

    session = sys.modules["image_to_prompt.nodes.training.session"]
    from image_to_prompt.projection import REFINE, TrainingImages

    sdxl, config = loaded.sdxl, next(iter(REFINE.values()))
    noise = replace(config.noise, timesteps_per_image=BATCH - config.preservation.preserve_pairs)
    sockets = (sdxl.model, sdxl.vae, sdxl.clip, loaded.vision)
    models = session.Models(*sockets, loaded.projection, "fast")
    alone = TrainingImages((torch.randn(4, SMALL, SMALL),), torch.randn(1, 768))
    texts = [f"a {colour} star" for colour in ("red", "green", "blue", "black")]
    trainer = session.trainer_of(
        models, replace(config, noise=noise), 0, 30, alone, preserved_texts=texts
    )
    for _ in range(WARM):
        trainer.step()
    unet = sdxl.model.model.diffusion_model
    noisy, times = torch.randn(BATCH, 4, SMALL, SMALL), torch.full((BATCH,), 500.0)
    pooled = torch.randn(BATCH, 2816)

    def bare():
        context = torch.randn(BATCH, 77, 2048, requires_grad=True)
        unet(noisy, times, context=context, y=pooled).square().mean().backward()

    unet.requires_grad_(False)
    ratios = in_turns(trainer.step, bare, repeats)
    return {f"SDXL: training step of {BATCH} / bare forward and backward": row(ratios, "<= 1.15")}


def random_readings():
    """Readings of random captions, whose states depend on their joint embeddings linearly."""
    import torch

    from image_to_prompt.projection import SDXL, fit_readings

    joint, states = torch.randn(1000, 768), {}
    for name in SDXL.reading_names:
        width = 1280 if name == "pooled" else SDXL.part(name.partition(".")[0]).width
        states[name] = joint @ torch.randn(768, width) / 768**0.5
    return fit_readings(SDXL, joint, states)


if __name__ == "__main__":
    main()
