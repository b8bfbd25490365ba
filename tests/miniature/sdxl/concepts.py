"""The thing or the ground of a picture taken from another one, or left out, on SDXL's miniature.

    python tests miniature.sdxl.concepts --n 300

The pairs, words and texts of `drawings.concepts`; prompts by readings with the mean of 32 pictures
removed, as Image To Prompt Mix makes them for SDXL. Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from image_to_prompt.projection import Concept, swap, without

from ..drawings import models as drawings
from ..drawings.concepts import (
    ATTRIBUTES,
    COLUMNS,
    MOST,
    NOISE_SEED,
    TEXT_WEIGHT,
    WORDS,
    Pairs,
    pairs,
    taken,
    texts_of,
)
from ..drawings.measures import measured, shown
from ..drawings.rows import PICTURES
from ..drawings.sampling import Miniature as Drawings
from ..drawings.sampling import noise_of
from ..drawings.world import Scenes
from ..experiments.scores import share
from .encoders import Prompts
from .rows import forms_of
from .sampling import Miniature
from .slots import edited, placed


def rows(mini: Miniature, case: Pairs) -> Iterator[tuple[str, Prompts, Scenes]]:
    """Name, prompts, and the scenes with the wanted thing and ground."""
    forms, encode, a = forms_of(mini), mini.encoders.encode, case.embeds_a
    readings = forms.by_pictures[PICTURES]
    mean = (readings.direction, readings.centre)

    def alone(x: Tensor) -> Prompts:
        return placed(readings.apply(x), forms.empty, forms.end)

    def with_text(x: Tensor, texts: list[str]) -> Prompts:
        return edited(readings.apply(x), readings, *encode(texts), TEXT_WEIGHT)

    yield "A alone", alone(a), case.a
    for this in ATTRIBUTES:
        concept = Concept.of(mini.encoders.joint(WORDS[this]))
        swapped, texts = taken(case.a, case.b, this), texts_of(this, case.b)
        left = without(a, concept, 1.0, *mean)
        yield f"{this}: taken from B", alone(swap(a, case.embeds_b, concept)), swapped
        yield f"{this}: a text that names B's", with_text(a, texts), swapped
        yield f"{this}: without, and that text", with_text(left, texts), swapped
        yield f"{this}: without", alone(left), case.a


def main() -> None:
    """Draw all rows and print one line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=MOST, help=f"pairs, at most {MOST}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mini, judge = Miniature.load(), drawings.load("judge")
    case = pairs(Drawings.load(), "test", options.n)
    noise = noise_of(NOISE_SEED, len(case.a))
    for name, prompts, wanted in rows(mini, case):
        found = measured(mini.draw(prompts, noise), wanted, judge)
        cells = "  ".join(f"{column} {shown(share(found[column]))}" for column in COLUMNS)
        print(f"{name:28} {cells}", flush=True)


if __name__ == "__main__":
    main()
