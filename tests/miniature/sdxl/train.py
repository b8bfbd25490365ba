"""Train the miniature of SDXL, stage by stage, resumably, on one thread.

    python tests miniature.sdxl.train --stage all

from the repository's root. A stage that was interrupted goes on from its checkpoint in
build/drawings/sdxl; a finished one is only evaluated and written again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..drawings import models as drawings
from . import models
from .models import WEIGHTS

STAGES = ("open_clip", "open_vision", "unet")


def train_open_clip(seed: int, out: Path, initial: Path) -> dict[str, float]:
    """The second text encoder."""
    from . import train_open_clip as stage

    encoder = stage.train(seed)
    facts = stage.measure(encoder)
    written = {name: f"{value:.4f}" for name, value in facts.items()}
    models.save(encoder, "open_clip", out, seed=str(seed), **written)
    return facts


def train_open_vision(seed: int, out: Path, initial: Path) -> dict[str, float]:
    """The second text encoder's vision encoder."""
    from . import train_open_vision as stage

    tower = stage.train(seed, models.load("open_clip", out))
    facts = stage.measure(tower)
    written = {name: f"{value:.4f}" for name, value in facts.items()}
    models.save(tower, "open_vision", out, seed=str(seed), **written)
    return facts


def train_unet(seed: int, out: Path, initial: Path) -> dict[str, float]:
    """The U-Net, on the latents of the drawings and the states of the encoders on disk."""
    from . import train_unet as stage

    model, facts = stage.train(seed, out, initial)
    written = {name: f"{value:.5f}" for name, value in facts.items()}
    models.save(model, "unet", out, seed=str(seed), **written)
    return facts


def snapshot(seed: int, out: Path) -> None:
    """Write the averaged weights of the U-Net's run in progress."""
    from . import train_unet as stage

    model, step = stage.snapshot(seed)
    models.save(model, "unet", out, seed=str(seed), steps=str(step))
    print(f"unet at step {step}")


def main() -> None:
    """Run the stages asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--initial", type=Path, default=drawings.WEIGHTS, help="drawings' U-Net")
    parser.add_argument("--snapshot", action="store_true", help="write the U-Net as it stands")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.snapshot:
        snapshot(options.seed, options.out)
        return
    for stage in STAGES if options.stage == "all" else (options.stage,):
        print(
            stage,
            globals()[f"train_{stage}"](options.seed, options.out, options.initial),
            flush=True,
        )


if __name__ == "__main__":
    main()
