"""Retrain the miniature from a seed: python tests miniature.training.train --part all --seed 0"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from image_to_prompt.tests.miniature import models
from image_to_prompt.tests.miniature.models import WEIGHTS

PARTS = ("taesd", "clip", "second", "unet")


def train_part(
    part: str, seed: int, steps: int | None, out: Path, initial: Path | None = None
) -> None:
    """Train one part and write its weights; later parts read the weights of earlier ones."""
    facts = {"seed": str(seed)}
    if part == "taesd":
        from image_to_prompt.tests.miniature.training import train_taesd

        model = train_taesd.train(seed, steps)
        for turn in range(len(train_taesd.POLISH_ROUNDS)):
            model = train_taesd.polish(model, seed, turn)
        facts |= {name: f"{value:.6f}" for name, value in train_taesd.measure(model).items()}
    elif part == "unet":
        from image_to_prompt.tests.miniature.training import train_unet

        model = train_unet.train(seed, steps, out)
    else:
        from image_to_prompt.tests.miniature.training import train_clip

        model = train_clip.train(part, seed, steps, initial)
    models.save(model, part, out, **facts)
    print(part, facts)


def snapshot(seed: int, out: Path) -> None:
    """Write the averaged weights of the U-Net run in progress."""
    from image_to_prompt.tests.miniature.training import train_unet

    run = train_unet.begin(seed)
    run.adopt_mean()
    models.save(run.model, "unet", out, seed=str(seed), step=str(run.step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="other than the recipe's number of steps")
    parser.add_argument("--initial", type=Path, help="weights a CLIP begins from")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--snapshot", action="store_true", help="write the U-Net as it stands")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.snapshot:
        snapshot(options.seed, options.out)
        return
    for part in PARTS if options.part == "all" else (options.part,):
        train_part(part, options.seed, options.steps, options.out, options.initial)


if __name__ == "__main__":
    main()
