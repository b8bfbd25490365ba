"""Concepts of a picture taken from another one, alone, or left out: the miniature of shapes.

    python tests miniature.experiments.concepts --n 500

Pairs of pictures that differ in shape and in both colours, of held-out combinations. Each row draws
one picture a pair, with the same noise in all rows, and tells how often what is wanted and what is
to be kept are there. --split train draws pairs of the training combinations, on which settings are
chosen; --nearest reads the nearest caption in CLIP's joint space instead of drawing.
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
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    Concept,
    Projection,
    only,
    picture_direction,
    spherical_mean,
    swap,
    without,
)
from image_to_prompt.projection.prompt.conditioning import assemble
from image_to_prompt.tests.miniature.experiments.centred_rows import (
    centred_projections,
    closed_projection,
)
from image_to_prompt.tests.miniature.experiments.editing import edited
from image_to_prompt.tests.miniature.experiments.rows import NORM, corpus
from image_to_prompt.tests.miniature.experiments.scores import Score, share
from image_to_prompt.tests.miniature.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world.captions import FULL, write
from image_to_prompt.tests.miniature.world.oracle import read
from image_to_prompt.tests.miniature.world.scenes import (
    COLOURS,
    SHAPES,
    Scenes,
    combinations,
    place,
    render,
    sample,
)
from image_to_prompt.workflows.checkout import ROOT

SEEDS = {"train": 301, "test": 302}
NOISE_SEED, PICTURE_SEED = 303, 32
ATTRIBUTES = ("shape", "figure", "ground")
# What a user would write as words of one's own, and as a text that names one of them.
WORDS = {
    "figure": [f"something {colour}" for colour in COLOURS],
    "ground": [f"{colour} background" for colour in COLOURS],
    "shape": list(SHAPES),
}
TEXTS = {"figure": "something {f}", "ground": "a {g} background", "shape": "a {s}"}
OTHERS = {
    "figure": "a {s} on a {g} background",
    "ground": "a {f} {s}",
    "shape": "something {f} on {g}",
}
TEXT_WEIGHT = 0.8
ENERGIES = (0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Pairs:
    """N pairs: attributes a, b (N, 3) and image embeddings of the pictures (N, 96)."""

    a: Tensor
    b: Tensor
    embeds_a: Tensor
    embeds_b: Tensor


def pairs(mini: Miniature, split: str, count: int) -> Pairs:
    """Pairs that differ in everything, and whose swaps leave figure and ground apart."""
    generator, triples = generator_of(SEEDS[split], 0), combinations(split)
    a, b = (
        triples[torch.randint(len(triples), (20 * count,), generator=generator)] for _ in range(2)
    )
    good = (a != b).all(dim=1) & (a[:, 1] != b[:, 2]) & (a[:, 2] != b[:, 1])
    a, b = a[good][:count], b[good][:count]
    embeds = [mini.image_embeds(render(place(side, generator))) for side in (a, b)]
    return Pairs(a, b, *embeds)


def joint(mini: Miniature, texts: list[str]) -> Tensor:
    """Text embeddings (N, 96), joint space."""
    states, ends = mini.states(texts)
    return states[torch.arange(len(states)), ends] @ mini.clip.text_projection.weight.T


def written(template: str, triples: Tensor) -> list[str]:
    return [write(template, triple) for triple in triples]


def leading(text_embeds: Tensor, energy: float) -> Concept:
    """IP-Composer's concept: the leading directions that hold this share of the energy."""
    x = normalize(text_embeds, dim=-1)
    _, values, directions = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    held = values.square().cumsum(dim=0) / values.square().sum()
    rank = int((held < energy).sum()) + 1
    return Concept(directions[:rank], torch.ones(rank))


def replaced(a: Tensor, b: Tensor, index: int) -> Tensor:
    """Attributes a (N, 3) with one of them taken from b."""
    return torch.cat([a[:, :index], b[:, index : index + 1], a[:, index + 1 :]], dim=1)


Row = tuple[str, Callable[[], Tensor], Tensor]  # name, conditions (N, 77, 96), wanted (N, 3)


def rows(mini: Miniature, case: Pairs) -> Iterator[tuple[Row, Tensor | None]]:
    """Every row, with the mixed image embeddings where there are some."""
    sos = mini.states([""])[0][0, 0]
    forms = {
        "gap 0": closed_projection(mini, NORM),
        "gap .5": centred_projections(mini, corpus(mini), NORM)["gap_half"],
    }
    plain = forms["gap 0"]
    mean = picture_direction(mini.image_embeds(render(_sixteen()))).float()
    for index, name in enumerate(ATTRIBUTES):
        concept = Concept.of(joint(mini, WORDS[name]))
        target = replaced(case.a, case.b, index)
        x = swap(case.embeds_a, case.embeds_b, concept)
        for gap, form in forms.items():
            yield (f"{name}: swap, {gap}", _alone(sos, form, x), target), x
        for energy in ENERGIES:
            x = swap(case.embeds_a, case.embeds_b, leading(joint(mini, WORDS[name]), energy))
            yield (f"{name}: leading directions, {energy}", _alone(sos, plain, x), target), x
        named = written(TEXTS[name], case.b)
        say = _with_text(mini, plain, case.embeds_a, named)
        yield (f"{name}: a text that names it", say, target), None
        x = without(case.embeds_a, concept, direction=mean)
        yield (f"{name}: without, and that text", _with_text(mini, plain, x, named), target), None
        yield (f"{name}: without", _alone(sos, plain, x), case.a), x
        x = only(case.embeds_a, concept, direction=mean)
        others, target = written(OTHERS[name], case.b), replaced(case.b, case.a, index)
        yield (
            (f"{name}: only, and a text of the rest", _with_text(mini, plain, x, others), target),
            x,
        )
        say = _with_text(mini, plain, case.embeds_a, others)
        yield (f"{name}: all, and a text of the rest", say, target), None
    yield ("plain average", _average(sos, plain, case), case.a), None


def _sixteen() -> Scenes:
    return sample(16, "train", generator_of(PICTURE_SEED, 0))


def _alone(sos: Tensor, form: Projection, x: Tensor) -> Callable[[], Tensor]:
    return lambda: assemble(sos, form.apply(x))


def _with_text(
    mini: Miniature, form: Projection, x: Tensor, texts: list[str]
) -> Callable[[], Tensor]:
    return lambda: edited(mini, form.apply(x), texts, TEXT_WEIGHT, form.centred)


def _average(sos: Tensor, form: Projection, case: Pairs) -> Callable[[], Tensor]:
    def contexts() -> Tensor:
        ends = [form.apply(side) for side in (case.embeds_a, case.embeds_b)]
        means = [spherical_mean(torch.stack(both)) for both in zip(*ends, strict=True)]
        return assemble(sos, torch.cat(means))

    return contexts


def found(pictures: Tensor) -> Tensor:
    """Attributes (N, 3) as the oracle reads them, -1 where it cannot."""
    seen = read(pictures)
    triples = torch.stack([seen.scenes.shape, seen.scenes.figure, seen.scenes.ground], dim=1)
    return torch.where(seen.readable[:, None], triples, -1)


def nearest(mini: Miniature, x: Tensor) -> Tensor:
    """Attributes (N, 3) of the nearest captions, both modalities less their means."""
    triples = combinations("all")
    captions = torch.stack([normalize(joint(mini, written(t, triples)), dim=-1) for t in FULL[:6]])
    captions = captions.mean(dim=0)
    pictures = render(sample(256, "train", generator_of(PICTURE_SEED, 1)))
    mean = normalize(mini.image_embeds(pictures), dim=-1).mean(dim=0)
    away = normalize(captions - captions.mean(dim=0), dim=-1)
    return triples[((normalize(x, dim=-1) - mean) @ away.T).argmax(dim=-1)]


def scores(seen: Tensor, case: Pairs, target: Tensor) -> dict[str, dict[str, Score]]:
    """For each attribute: how often it is the wanted one, A's and B's."""
    sides = {"wanted": target, "a": case.a, "b": case.b}
    return {
        name: {side: share(seen[:, i] == values[:, i]) for side, values in sides.items()}
        for i, name in enumerate(ATTRIBUTES)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--split", choices=SEEDS, default="test")
    parser.add_argument("--rows", nargs="*", default=[""], help="only rows that contain one")
    parser.add_argument("--nearest", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "concepts.json")
    options = parser.parse_args()
    mini = Miniature.load()
    case = pairs(mini, options.split, options.n)
    noise, report = noise_of(NOISE_SEED, len(case.a)), {}
    for (name, contexts, target), x in rows(mini, case):
        if not any(part in name for part in options.rows) or (options.nearest and x is None):
            continue
        clock = time.monotonic()
        seen = nearest(mini, x) if options.nearest else found(mini.draw(contexts(), noise))
        report[name] = scores(seen, case, target)
        cells = [
            "{0} {1[value]:.3f} [{1[low]:.2f}, {1[high]:.2f}]".format(attribute, each["wanted"])
            + f" (A {each['a']['value']:.2f}, B {each['b']['value']:.2f})"
            for attribute, each in report[name].items()
        ]
        print(f"{name:34} {'  '.join(cells)}  {time.monotonic() - clock:.0f} s", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
