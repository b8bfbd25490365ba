"""OnlineRefine on the miniature: python tests miniature.experiments.fit_refine --n 100

Each held-out picture alone is refined on for 30 steps, then drawn again from new noise and edited
by text, beside the closed form, a token trained for as long (textual inversion) and a LoRA
trained as the host trains them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import REFINE, Trainer, TrainingConfig, TrainingImages, refine
from image_to_prompt.tests.miniature import models
from image_to_prompt.tests.miniature.experiments import fit_inversion, fit_lora
from image_to_prompt.tests.miniature.experiments.editing import changed, edited
from image_to_prompt.tests.miniature.experiments.fit_common import (
    EDITS,
    Bench,
    measured,
    ratio,
    scores,
)
from image_to_prompt.tests.miniature.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world.oracle import agreement, read
from image_to_prompt.tests.miniature.world.scenes import Scenes, render, sample
from image_to_prompt.workflows.checkout import ROOT

STEPS = 30
SCENE_SEED, NOISE_SEED = 21, 22
ERRORS = ("pixel_error", "size_error", "position_error")
Found = dict[str, Tensor]


def refined(
    bench: Bench, seen: TrainingImages, settings: TrainingConfig, steps: int, seed: int = 0
):
    """The projection after `steps` on these pictures."""
    trainer = Trainer(
        bench.denoiser,
        bench.closed,
        seen,
        bench.null,
        settings,
        seed,
        schedule_steps=steps,
        prompts=bench.texts(),
    )
    for _ in refine(trainer, steps):
        pass
    return trainer.result()


def row(bench: Bench, scenes: Scenes, settings: TrainingConfig | None, steps: int = STEPS) -> Found:
    """Measurements of each scene, refined on alone; settings None: the closed form."""
    pictures, noise = render(scenes), noise_of(NOISE_SEED, len(scenes))
    seen = bench.pictures(pictures)
    parts = []
    for i in range(len(scenes)):
        projection = bench.closed
        if settings is not None:
            alone = TrainingImages(seen.latents[i : i + 1], seen.embeds[i : i + 1])
            projection = refined(bench, alone, settings, steps)
        embedding = projection.apply(seen.embeds[i : i + 1])
        contexts = [bench.contexts(projection, seen.embeds[i : i + 1])]
        targets = []
        for kind, weight in EDITS:
            texts, target = changed(scenes[i : i + 1], kind)
            contexts.append(edited(bench.mini, embedding, texts, weight))
            targets.append(target)
        drawn = bench.draw(
            projection, torch.cat(contexts), noise[i : i + 1].expand(1 + len(EDITS), -1, -1, -1)
        )
        parts.append(found_of(drawn, pictures[i : i + 1], scenes[i : i + 1], targets))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def found_of(drawn: Tensor, reference: Tensor, scene: Scenes, targets: list[Scenes]) -> Found:
    """The picture against its reference, and whether the edits of colour and shape took."""
    found = measured(drawn[:1], reference, scene)
    for place, ((kind, weight), target) in enumerate(zip(EDITS, targets, strict=True), 1):
        name = "figure_colour" if kind == "colour" else "shape"
        found[f"edit_{kind}_{weight}"] = agreement(read(drawn[place : place + 1]), target)[name]
    return found


def rows(n: int, mini: Miniature | None = None, report: Callable[[str], None] = print) -> dict:
    """Row name -> scores, each with `relative`: its errors over the closed form's, paired."""
    bench = Bench.of(mini or Miniature.load())
    scenes = sample(n, "test", generator_of(SCENE_SEED, 0))
    plain = row(bench, scenes, None)
    table = {"closed_form_single": scores(plain)}
    report(show("closed_form_single", plain, plain))
    others = {f"refined ({name})": partial(row, settings=s) for name, s in REFINE.items()}
    default = next(iter(REFINE))
    others = {"refined": others.pop(f"refined ({default})"), **others}
    others["textual_inversion"] = partial(fit_inversion.row, steps=STEPS, noise_seed=NOISE_SEED)
    others["host_lora"] = partial(fit_lora.row, steps=STEPS, noise_seed=NOISE_SEED)
    for title, take in others.items():
        found = take(bench, scenes)
        table[title] = scores(found) | relative(found, plain)
        report(show(title, found, plain))
    return table


def relative(found: Found, plain: Found) -> dict[str, dict]:
    """`relative_<error>`: paired ratios to the closed form."""
    return {f"relative_{name}": ratio(found[name], plain[name]) for name in ERRORS}


def show(title: str, found: Found, plain: Found) -> str:
    """One line: ratios to the closed form, then shares."""
    parts = [f"{name[:5]} {ratio(found[name], plain[name])['value']:.2f}" for name in ERRORS]
    kinds = [name for name in found if found[name].dtype == torch.bool]
    parts += [f"{name} {found[name].float().mean():.2f}" for name in kinds]
    return f"{title:38}" + "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "refine.json")
    options = parser.parse_args()
    clock = time.monotonic()
    table = rows(options.n, Miniature.load(options.weights))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="ascii")
    print(f"{time.monotonic() - clock:.0f} s; written to {options.out}")


if __name__ == "__main__":
    main()
