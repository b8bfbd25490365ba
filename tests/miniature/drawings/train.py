"""Train the miniature of the drawings, stage by stage, resumably, on one thread.

    python tests miniature.drawings.train --stage all

from the repository's root. A stage that was interrupted goes on from its checkpoint in
build/drawings/training; a finished one is only evaluated and written again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from . import models
from .models import WEIGHTS

STAGES = ("taesd", "text", "vision", "judge", "unet")


def train_taesd(seed: int, out: Path, initial: Path | None) -> dict[str, float]:
    """The autoencoder."""
    from . import train_taesd as stage

    model = stage.train(seed, initial / "taesd.safetensors" if initial else None)
    facts = stage.measure(model)
    models.save(model, "taesd", out, seed=str(seed), **{k: f"{v:.5f}" for k, v in facts.items()})
    return facts


def train_text(seed: int, out: Path, initial: Path | None) -> dict[str, float]:
    """CLIP's text encoder, with the real geometry of its states."""
    from . import gap, joint_space
    from . import train_text as stage

    clip, space = stage.train(seed), joint_space.build()
    facts = stage.measure(clip, space)
    gap.set_text(clip, space)
    models.save(clip, "clip", out, seed=str(seed))
    return facts


def train_vision(seed: int, out: Path, initial: Path | None) -> dict[str, float]:
    """CLIP's vision encoder for the text encoder on disk, then the gap."""
    from . import gap, joint_space
    from . import train_vision as stage

    clip, space = models.load("clip", out), joint_space.build()
    clip = stage.train(seed, clip)
    gap.set_pictures(clip, space)
    with torch.no_grad():
        bank = F.normalize(clip.text_projection(gap.pair_states(clip)), dim=-1)
    facts = stage.measure(clip, bank)
    models.save(clip, "clip", out, seed=str(seed), **{k: f"{v:.4f}" for k, v in facts.items()})
    return facts


def train_judge(seed: int, out: Path, initial: Path | None) -> dict[str, float]:
    """The judge of things and artists, for the autoencoder on disk."""
    from . import train_judge as stage

    judge = stage.train(seed, out)
    facts = stage.measure(judge, out)
    models.save(judge, "judge", out, seed=str(seed), **{k: f"{v:.4f}" for k, v in facts.items()})
    return facts


def train_unet(seed: int, out: Path, initial: Path | None) -> dict[str, float]:
    """The U-Net, on the latents and text states of the weights on disk."""
    from . import train_unet as stage

    model, facts = stage.train(seed, out, initial / "unet.safetensors" if initial else None)
    models.save(model, "unet", out, seed=str(seed), **{k: f"{v:.5f}" for k, v in facts.items()})
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
    parser.add_argument("--initial", type=Path, help="folder of weights to begin from")
    parser.add_argument("--snapshot", action="store_true", help="write the U-Net as it stands")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.snapshot:
        snapshot(options.seed, options.out)
        return
    for stage in STAGES if options.stage == "all" else (options.stage,):
        trainer = globals()[f"train_{stage}"]
        print(stage, trainer(options.seed, options.out, options.initial), flush=True)


if __name__ == "__main__":
    main()
