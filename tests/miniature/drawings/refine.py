"""Online Refine on the miniature: python tests miniature.drawings.refine --n 100

Each held-out reference alone is refined on for 30 steps, then drawn again from new noise and
edited by text, beside the closed form and a LoRA trained as the host trains them. Each reference
leaves a file in build/drawings/refine, so that an interrupted run goes on; other weights have
another folder. Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import REFINE, Projection, TrainingImages

from ..experiments.fit_common import ratio
from ..experiments.fit_lora import RATE, adapted, lora_of
from ..experiments.scores import share
from . import models
from .bench import Bench
from .editing import KINDS, changed, edited, outcome
from .evaluate import folder_of
from .measures import ERRORS, SHARES, Outcome, joined, measured, shown
from .sampling import Miniature, noise_of
from .world import TRAINED, Scenes, generator_of, render, sample

STEPS, WEIGHTS = 30, (0.6, 1.2)  # of the text in edits
SEED = 21
EDITS = tuple((kind, weight) for kind in KINDS for weight in WEIGHTS)
CLOSED, REFINED, LORA = "closed form", "refined", "the host's LoRA training"


def draws_of(
    bench: Bench, embeds: Tensor, scene: Scenes, form: Projection, number: int
) -> tuple[Tensor, list[Scenes]]:
    """Conditions (1 + E, 77, 96) of the reference and of its edits, and what these should give."""
    e = form.apply(embeds)
    contexts, targets = [bench.contexts(form, embeds)], []
    for kind, weight in EDITS:
        texts, target = changed(scene, kind, number)
        contexts.append(edited(bench.mini, e, texts, weight, form.centred))
        targets.append(target)
    return torch.cat(contexts), targets


def found_of(
    drawn: Tensor, reference: Tensor, scene: Scenes, targets: list[Scenes], judge: models.Judge
) -> Outcome:
    """The picture against its reference, and whether each edit took, (1,) each."""
    found = measured(drawn[:1], scene, judge)
    found["pixel"] = (drawn[:1] - reference).abs().flatten(1).mean(dim=1)
    for place, ((kind, weight), target) in enumerate(zip(EDITS, targets, strict=True), 1):
        taken = outcome(drawn[place : place + 1], target, kind, judge)
        found[f"{kind} {weight}"] = taken["takes"]
    return found


def rows_of(bench: Bench, judge: models.Judge, scene: Scenes, number: int) -> dict[str, Outcome]:
    """Row name -> measurements of one reference."""
    reference = render(scene)
    alone = bench.images(reference)
    noise = noise_of(SEED + number, 1).expand(1 + len(EDITS), -1, -1, -1)
    found = {}
    settings = REFINE[next(iter(REFINE))]
    forms = {CLOSED: bench.closed, REFINED: bench.refined(alone, settings, STEPS)}
    for name, form in forms.items():
        contexts, targets = draws_of(bench, alone.embeds, scene, form, number)
        drawn = bench.draw(form, contexts, noise)
        found[name] = found_of(drawn, reference, scene, targets, judge)
    contexts, targets = draws_of(bench, alone.embeds, scene, bench.closed, number)
    parameters = host_lora(bench, alone, contexts[:1])
    drawn = adapted(bench.mini, parameters).draw(contexts, noise)
    found[LORA] = found_of(drawn, reference, scene, targets, judge)
    return found


def host_lora(bench: Bench, alone: TrainingImages, context: Tensor) -> dict[str, Tensor]:
    """The U-Net's parameters after the host's LoRA training at its best rate on the shapes."""
    return lora_of(bench, alone, context, STEPS, RATE)


def print_table(parts: list[dict[str, Outcome]]) -> None:
    """Shares, and errors as paired ratios to those of the first row, with 95 % intervals."""
    rows = {name: joined([part[name] for part in parts]) for name in parts[0]}
    plain = next(iter(rows.values()))
    print(f"{len(parts)} references")
    for name, found in rows.items():
        edits = [f"{kind} {weight}" for kind, weight in EDITS]
        cells = [f"{c} {shown(share(found[c]))}" for c in (*SHARES, *edits)]
        cells += [f"{c} x {shown(ratio(found[c], plain[c]))}" for c in ("pixel", *ERRORS)]
        cells += [f"{c} median {float(found[c].median()):.1f}" for c in ERRORS]
        print(f"{name}\n  " + "\n  ".join(cells), flush=True)


def run(folder: Path, count: int, rows: Callable[[int], dict[str, Outcome]]) -> None:
    """Measure the references that have no file in the folder yet, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03}.pt"
        if not path.exists():
            clock = time.monotonic()
            torch.save(rows(number), path)
            print(f"{path.name}  {time.monotonic() - clock:.0f} s", flush=True)
    files = sorted(folder.glob("*.pt"))[:count]
    print_table([torch.load(file, weights_only=True) for file in files])


def main() -> None:
    """Measure the references that no earlier run has measured, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=100, help="references")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = folder_of(options.weights).parent.parent / "refine" / folder_of(options.weights).name
    mini, judge = Miniature.load(options.weights), models.load("judge", options.weights)
    bench, scenes = Bench.of(mini), sample(100, "test", generator_of(SEED), TRAINED)
    run(folder, options.n, lambda k: rows_of(bench, judge, scenes[k : k + 1], k))


if __name__ == "__main__":
    main()
