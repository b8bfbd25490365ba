"""Online Refine on the miniature of SDXL: python tests miniature.sdxl.refine --n 50

Each held-out reference alone is refined on for 30 steps, then drawn again from new noise and
edited by text, beside the readings without refining. Each reference leaves a file in
build/drawings/sdxl/refine, so that an interrupted run goes on; other weights have another folder.
Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

from image_to_prompt.projection import REFINE

from ..drawings import models as drawings
from ..drawings.editing import changed
from ..drawings.measures import Outcome
from ..drawings.refine import EDITS, REFINED, STEPS, found_of, run
from ..drawings.sampling import noise_of
from ..drawings.world import TRAINED, Scenes, generator_of, render, sample
from . import models
from .bench import Bench
from .encoders import Prompts
from .sampling import Miniature
from .slots import edited, placed
from .train_open_clip import RUNS

SEED, MOST, READINGS = 23, 100, "readings, 32 pictures"


def draws_of(
    bench: Bench, embeds: torch.Tensor, scene: Scenes, number: int
) -> tuple[Prompts, list[Scenes]]:
    """Conditions (1 + E) of the reference and of its edits, and what the edits should give."""
    readings = bench.plain.readings
    states = readings.apply(embeds)
    prompts, targets = [placed(states, bench.empty, bench.end)], []
    for kind, weight in EDITS:
        texts, target = changed(scene, kind, number)
        prompts.append(edited(states, readings, *bench.mini.encoders.encode(texts), weight))
        targets.append(target)
    return Prompts.cat(prompts), targets


def rows_of(
    bench: Bench, judge: drawings.Judge, scene: Scenes, number: int, preset: str
) -> dict[str, Outcome]:
    """Row name -> measurements of one reference."""
    reference = render(scene)
    alone = bench.images(reference)
    prompts, targets = draws_of(bench, alone.embeds, scene, number)
    noise = noise_of(SEED + number, 1).expand(len(prompts), -1, -1, -1)
    forms = {READINGS: bench.plain, REFINED: bench.refined(alone, REFINE[preset], STEPS)}
    return {
        name: found_of(bench.draw(form, prompts, noise), reference, scene, targets, judge)
        for name, form in forms.items()
    }


def folder_of(weights: Path, preset: str) -> Path:
    """Where the outcomes of these weights and this preset lie."""
    digest = hashlib.sha256(preset.encode())
    for part in ("open_clip", "unet"):
        digest.update((weights / f"{part}.safetensors").read_bytes())
    return RUNS / "refine" / digest.hexdigest()[:12]


def main() -> None:
    """Measure the references that no earlier run has measured, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=50, help="references")
    parser.add_argument("--preset", choices=tuple(REFINE), default=next(iter(REFINE)))
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = folder_of(options.weights, options.preset)
    bench, judge = Bench.of(Miniature.load(options.weights)), drawings.load("judge")
    scenes = sample(MOST, "test", generator_of(SEED), TRAINED)
    run(folder, options.n, lambda k: rows_of(bench, judge, scenes[k : k + 1], k, options.preset))


if __name__ == "__main__":
    main()
