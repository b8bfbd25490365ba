"""The thing or the ground of a picture taken from another one, alone, or left out.

    python tests miniature.drawings.concepts --n 500

Pairs of held-out pictures A and B that differ in thing, ground and artist. Each row draws one
picture a pair, with the same noise in all rows, and tells how often it shows the wanted thing, by
both judges, and the wanted ground. --split train draws pairs of the known combinations, on which
settings are chosen. Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import (
    Concept,
    Projection,
    assemble,
    only,
    picture_direction,
    spherical_mean,
    swap,
    without,
)
from image_to_prompt.tests.source import ROOT

from ..experiments.concepts import joint, leading
from ..experiments.scores import share
from . import models
from .editing import edited
from .measures import measured, shown
from .rows import CENTRED, PAPER, projections
from .sampling import Miniature, noise_of
from .words import WORDS
from .world import COLOURS, THINGS, TRAINED, Scenes, generator_of, render, sample

SEEDS = {"train": 401, "test": 402}
NOISE_SEED, PICTURE_SEED, MOST = 403, 404, 500
ATTRIBUTES, COLUMNS = ("thing", "ground"), ("thing", "judge", "ground")
TEXT_WEIGHT, ENERGY = 0.9, 0.9


@dataclass(frozen=True)
class Pairs:
    """N pairs of scenes and the image embeddings (N, 96) of their pictures."""

    a: Scenes
    b: Scenes
    embeds_a: Tensor
    embeds_b: Tensor


def pairs(mini: Miniature, split: str, count: int) -> Pairs:
    """The first pairs of those that differ in everything."""
    a, b = (sample(3 * MOST, split, generator_of(SEEDS[split], k), TRAINED) for k in (0, 1))
    apart = (a.thing != b.thing) & (a.ground != b.ground) & (a.artist != b.artist)
    which = apart.nonzero()[:, 0][: min(count, MOST)]
    a, b = a[which], b[which]
    return Pairs(a, b, mini.image_embeds(render(a)), mini.image_embeds(render(b)))


def texts_of(attribute: str, scenes: Scenes) -> list[str]:
    """A text for each scene that names its thing or its ground, and nothing else."""
    if attribute == "thing":
        return [f"a {THINGS[i]}" for i in scenes.thing.tolist()]
    return [f"on a {COLOURS[i]} background" for i in scenes.ground.tolist()]


def taken(a: Scenes, b: Scenes, attribute: str) -> Scenes:
    """Scenes a with one attribute of b."""
    return Scenes(**vars(a) | {attribute: getattr(b, attribute)})


Row = tuple[str, Callable[[], Tensor], Scenes]


def rows(mini: Miniature, case: Pairs) -> Iterator[Row]:
    """Name, function giving conditions (N, 77, 96), scenes with the wanted thing and ground."""
    sos = mini.states([""])[0][0, 0]
    named = projections(mini)
    forms = {"gap 0": named[PAPER], "gap .5": named[CENTRED["gap_half"]]}
    plain, a = forms["gap 0"], case.embeds_a
    known = sample(16, "train", generator_of(PICTURE_SEED))
    mean = picture_direction(mini.image_embeds(render(known))).float()

    def alone(form: Projection, x: Tensor) -> Callable[[], Tensor]:
        return lambda: assemble(sos, form.apply(x))

    def with_text(x: Tensor, texts: list[str], form: Projection = plain) -> Callable[[], Tensor]:
        return lambda: edited(mini, form.apply(x), texts, TEXT_WEIGHT, form.centred)

    for name, form in forms.items():
        yield f"A alone, {name}", alone(form, a), case.a
    for this, other in (ATTRIBUTES, ATTRIBUTES[::-1]):
        words = joint(mini, WORDS[this])
        concept = Concept.of(words)
        swapped, with_rest = (taken(case.a, case.b, each) for each in (this, other))
        mixed = swap(a, case.embeds_b, concept)
        for name, form in forms.items():
            yield f"{this}: swap, {name}", alone(form, mixed), swapped
        rival = swap(a, case.embeds_b, leading(words, ENERGY))
        yield f"{this}: leading directions, {ENERGY}", alone(plain, rival), swapped
        texts = texts_of(this, case.b)
        yield f"{this}: a text that names it", with_text(a, texts), swapped
        left = without(a, concept, direction=mean)
        kept, rest = only(a, concept, direction=mean), texts_of(other, case.b)
        for name, form in forms.items():
            yield f"{this}: without, and that text, {name}", with_text(left, texts, form), swapped
            yield f"{this}: without, {name}", alone(form, left), case.a
            yield (
                f"{this}: only, and a text of the rest, {name}",
                with_text(kept, rest, form),
                (with_rest),
            )
            yield f"{this}: only, {name}", alone(form, kept), case.a
        yield f"{this}: all, and a text of the rest", with_text(a, rest), with_rest
    ends = [plain.apply(side) for side in (a, case.embeds_b)]
    means = torch.cat([spherical_mean(torch.stack(both)) for both in zip(*ends, strict=True)])
    yield "plain average", lambda: assemble(sos, means), case.a


def main() -> None:
    """Draw the rows that are asked for and print one line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=MOST, help=f"pairs, at most {MOST}")
    parser.add_argument("--split", choices=SEEDS, default="test")
    parser.add_argument("--rows", nargs="*", default=[""], help="only rows that contain one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "drawings" / "concepts.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mini, judge, report = Miniature.load(), models.load("judge"), {}
    case = pairs(mini, options.split, options.n)
    noise = noise_of(NOISE_SEED, len(case.a))
    for name, contexts, wanted in rows(mini, case):
        if not any(part in name for part in options.rows):
            continue
        clock = time.monotonic()
        found = measured(mini.draw(contexts(), noise), wanted, judge)
        report[name] = {column: share(found[column]) for column in COLUMNS}
        cells = "  ".join(f"{column} {shown(value)}" for column, value in report[name].items())
        print(f"{name:36} {cells}  {time.monotonic() - clock:.0f} s", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
