"""Fit Projection on the miniature: python tests miniature.drawings.fit --n 300

The projection is fitted to pictures by an artist that no model has seen, and judged on others by
the same artist: whose hand it is, and what no caption says, beside the closed form and a LoRA
trained as the host trains them, on the same pictures for as many steps. The world of the known
artists is drawn too, to see that nothing is lost there. Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import FIT, Projection, Trainer, TrainingConfig, TrainingImages
from image_to_prompt.projection import fit as fit_epochs

from ..experiments.fit_common import ratio
from ..experiments.fit_lora import adapted, lora_of
from ..experiments.scores import share
from . import models
from .bench import Bench
from .contact_sheet import save_sheet
from .evaluate import folder_of
from .measures import ERRORS, Outcome, difference, measured, shown
from .sampling import Miniature, noise_of
from .world import HELD_OUT, TRAINED, Scenes, generator_of, render, sample

PICTURES, EPOCHS, HELD_SHARE, PRIOR = 100, 30, 0.1, 100
SEED, NOISE_SEED = 41, 42
HANDS = ("hand", "thing", "judge", "ground")
PIXELS = ("pixel", *ERRORS)
CLOSED, FITTED, LORA = "closed form", "fitted", "the host's LoRA training"


def learnt(artist: int, count: int = PICTURES) -> Tensor:
    """The pictures (N, 3, 96, 96) that are fitted on."""
    return render(sample(count, "train", generator_of(SEED), (artist,)))


def fitted(bench: Bench, pictures: Tensor, config: TrainingConfig, epochs: int) -> Projection:
    """The projection fitted to pictures (N, 3, 96, 96), a tenth of them held out."""
    seen, held = bench.images(pictures), held_of(len(pictures))
    prior = bench.images(render(sample(PRIOR, "train", generator_of(SEED, 3))))
    train, held_out = (_part(seen, part) for part in (slice(held, None), slice(0, held)))
    trainer = Trainer(
        bench.denoiser, bench.closed, train, bench.null, config, 0, held_out,
        schedule_steps=steps_of(len(pictures), config, epochs), prompts=bench.texts(), prior=prior,
    )  # fmt: skip
    for _ in fit_epochs(trainer, epochs):
        pass
    return trainer.result()


def steps_of(pictures: int, config: TrainingConfig, epochs: int) -> int:
    """Training steps of a fit."""
    return epochs * math.ceil((pictures - held_of(pictures)) / config.batch_size)


def held_of(pictures: int) -> int:
    """How many of the pictures the fit is not trained on."""
    return max(1, round(HELD_SHARE * pictures))


def _part(seen: TrainingImages, part: slice) -> TrainingImages:
    return TrainingImages(seen.latents[part], seen.embeds[part], None)


def host_lora(bench: Bench, pictures: Tensor, steps: int, rate: float) -> Miniature:
    """The miniature with a LoRA of all weights, trained on pictures with their closed form."""
    seen = bench.images(pictures)
    contexts = bench.contexts(bench.closed, seen.embeds)
    return adapted(bench.mini, lora_of(bench, seen, contexts, steps, rate))


def judged(
    bench: Bench, projection: Projection, mini: Miniature, judge: models.Judge, scenes: Scenes
) -> tuple[Outcome, Tensor]:
    """Each scene drawn from its picture's prompt: measurements (N,), pictures (N, 3, 96, 96)."""
    reference = render(scenes)
    context = bench.contexts(projection, mini.image_embeds(reference))
    noise = noise_of(NOISE_SEED, len(scenes))
    plain = mini is bench.mini
    drawn = bench.draw(projection, context, noise) if plain else mini.draw(context, noise)
    found = measured(drawn, scenes, judge)
    with torch.no_grad():
        # Of all eight artists: `artist` of `measured` knows the six trained ones.
        found["hand"] = judge(drawn)[1].argmax(dim=-1) == scenes.artist
    found["pixel"] = (drawn - reference).abs().flatten(1).mean(dim=1)
    return found, drawn


def print_row(name: str, new: tuple[Outcome, Outcome], old: tuple[Outcome, Outcome]) -> None:
    """One row: shares and ratios of errors by the artist, then what changed in the old world.

    new, old: measurements by this row, and by the closed form on the same pictures.
    """
    mine, plain = new
    cells = [f"{column} {shown(share(mine[column]))}" for column in HANDS]
    cells += [f"{column} x {shown(ratio(mine[column], plain[column]))}" for column in PIXELS]
    cells += [
        f"old {column} {shown(share(old[0][column]))}, "
        f"change {shown(difference(old[0][column], old[1][column]))}"
        for column in ("thing", "judge", "ground")
    ]
    cells.append(f"old position x {shown(ratio(old[0]['position'], old[1]['position']))}")
    print(f"{name}\n  " + "\n  ".join(cells), flush=True)


def main() -> None:
    """Fit, draw, and print the rows; a contact sheet of eight pictures a row beside them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=300, help="pictures to judge on")
    parser.add_argument("--artist", choices=HELD_OUT, default="openmoji")
    parser.add_argument("--part", choices=("train", "test"), default="test")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--rate", type=float, default=0.0, help="0: the preset's")
    parser.add_argument("--lora", type=float, nargs="*", default=[5e-3], help="rates")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run(options)


def run(options: argparse.Namespace) -> None:
    """See `main`."""
    bench = Bench.of(Miniature.load(options.weights))
    judge, artist = models.load("judge", options.weights), HELD_OUT[options.artist]
    new = sample(options.n, options.part, generator_of(SEED, 1), (artist,))
    old = sample(options.n, options.part, generator_of(SEED, 2), TRAINED)
    name = next(iter(FIT))
    config = FIT[name]
    if options.rate:
        config = replace(config, learning_rate=options.rate)
    pictures, sheet, plain = learnt(artist), [render(new[:8])], None
    steps = steps_of(len(pictures), config, options.epochs)
    rows = {CLOSED: lambda: (bench.closed, bench.mini)}
    rows[FITTED] = lambda: (fitted(bench, pictures, config, options.epochs), bench.mini)
    for rate in options.lora:
        rows[f"{LORA}, {rate:g}"] = lambda rate=rate: (
            bench.closed, host_lora(bench, pictures, steps, rate),
        )  # fmt: skip
    print(f"{options.artist}, {len(pictures)} pictures, {steps} steps, judged on {options.n}")
    for title, make in rows.items():
        clock = time.monotonic()
        projection, mini = make()
        found = [judged(bench, projection, mini, judge, scenes) for scenes in (new, old)]
        plain = plain or [outcome for outcome, _ in found]
        print_row(title, (found[0][0], plain[0]), (found[1][0], plain[1]))
        print(f"  {time.monotonic() - clock:.0f} s", flush=True)
        sheet.append(found[0][1][:8])
        save_sheet(sheet, folder_of(options.weights).parent.parent / f"fit-{options.artist}.png")


if __name__ == "__main__":
    main()
