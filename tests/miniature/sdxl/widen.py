"""Write the miniature at SDXL's shapes: python tests miniature.sdxl.widen --out FOLDER

One checkpoint as core's loader takes it: U-Net, both text encoders, TAESD. Idle layers share one
number each, which only the .ckpt format can hold: about 1 GB where a dense file has about 4.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import torch

from ..drawings import models as drawings
from ..drawings.sources import BUILD
from ..widening.layers import State
from ..widening.widen_unet import widen_taesd
from . import models
from .widen_text import widen_g, widen_l
from .widen_unet import widen_unet

OUT = BUILD.parent / "miniature-sdxl"
SDXL_SCALE = 0.13025  # the host multiplies an SDXL latent by this before the U-Net sees it


def narrow(model: torch.nn.Module) -> State:
    """Trained tensors of a narrow model, without position indices."""
    return {name: v for name, v in model.state_dict().items() if v.is_floating_point()}


@torch.no_grad()
def checkpoint(folder: Path = models.WEIGHTS) -> State:
    """The SDXL checkpoint's tensors."""
    taesd = widen_taesd(narrow(drawings.load("taesd")), drawings.latent_scale())
    taesd["vae_scale"] = torch.tensor(SDXL_SCALE * drawings.latent_scale())
    parts = {
        "model.diffusion_model.": widen_unet(narrow(models.load("unet", folder))),
        "conditioner.embedders.0.": widen_l(narrow(drawings.load("clip"))),
        "conditioner.embedders.1.": widen_g(narrow(models.load("open_clip", folder))),
        "first_stage_model.": taesd,
    }
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}


def name_of(folder: Path = models.WEIGHTS) -> str:
    """The checkpoint's file name, another one for other weights."""
    paths = [folder / f"{part}.safetensors" for part in models.CHECKPOINT]
    paths += [drawings.WEIGHTS / f"{part}.safetensors" for part in ("clip", "taesd")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    return f"miniature-sdxl-{digest.hexdigest()[:12]}.ckpt"


def write(out: Path = OUT, folder: Path = models.WEIGHTS) -> Path:
    """Write the checkpoint into `out` unless it is there; its path."""
    target = out / name_of(folder)
    if not target.exists():
        out.mkdir(parents=True, exist_ok=True)
        # Tests of two hosts may write it at the same time.
        scratch = target.with_suffix(f".{os.getpid()}.partial")
        torch.save({"state_dict": checkpoint(folder)}, scratch)
        scratch.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write into")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS, help="narrow weights")
    options = parser.parse_args()
    path = write(options.out, options.weights)
    print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
