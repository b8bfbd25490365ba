"""Write the miniature at SD 1.5 shapes: python tests miniature.widening.widen --out FOLDER"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_file

from image_to_prompt.tests.miniature.drawings import models as drawings
from image_to_prompt.tests.miniature.drawings.sources import BUILD
from image_to_prompt.tests.miniature.widening.layers import State
from image_to_prompt.tests.miniature.widening.widen_clip import widen_clip
from image_to_prompt.tests.miniature.widening.widen_unet import widen_taesd, widen_unet

OUT = BUILD / "wide"
CHECKPOINT = "miniature-sd15.safetensors"
CLIP = "miniature-clip-vit-large-patch14.safetensors"


def narrow(part: str, folder: Path, models: ModuleType = drawings) -> State:
    """Trained tensors of a part in fp32, without position indices."""
    state = models.load(part, folder).state_dict()
    return {name: value for name, value in state.items() if value.is_floating_point()}


def checkpoint(folder: Path, models: ModuleType = drawings) -> State:
    """The SD 1.5 checkpoint: U-Net, text encoder (without its projection, as in SD 1.5), TAESD."""
    clip = widen_clip(narrow("clip", folder, models), models.CLIP_IDS)
    text = {name: value for name, value in clip.items() if name.startswith("text_model.")}
    taesd = widen_taesd(narrow("taesd", folder, models), models.latent_scale(folder))
    parts = {
        "model.diffusion_model.": widen_unet(narrow("unet", folder, models)),
        "cond_stage_model.transformer.": {name: value.half() for name, value in text.items()},
        "first_stage_model.": taesd,
    }
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}


def write(
    out: Path = OUT, folder: Path | None = None, models: ModuleType = drawings
) -> tuple[Path, Path]:
    """Write checkpoint and CLIP file into `out`; returns their paths.

    folder: the narrow weights; those of `models`, the module of a world's narrow models, if None.
    """
    folder = folder or models.WEIGHTS
    out.mkdir(parents=True, exist_ok=True)
    wide = widen_clip(narrow("clip", folder, models), models.CLIP_IDS)
    clip = {name: value.half() for name, value in wide.items()}
    for name, state in ((CHECKPOINT, checkpoint(folder, models)), (CLIP, clip)):
        scratch = out / f"{name}.partial"
        save_file({key: value.contiguous() for key, value in state.items()}, scratch)
        scratch.replace(out / name)
    return out / CHECKPOINT, out / CLIP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write into")
    parser.add_argument(
        "--weights", type=Path, default=drawings.WEIGHTS, help="folder of narrow weights"
    )
    options = parser.parse_args()
    with torch.no_grad():
        for path in write(options.out, options.weights):
            print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
