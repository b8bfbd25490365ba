"""A refined picture in some cross-attention blocks, a caption in the others.

    python tests miniature.drawings.blocks --n 50

Each held-out reference alone is refined on as in `refine`, then drawn with its own prompt in some
blocks and the caption of another thing and ground in the others, by the same noise in all rows.
Which of the picture's thing, ground, hand, place and size come along? Each reference leaves a file
in build/drawings/blocks, so that an interrupted run goes on. --development draws other references,
on which the sets of blocks were chosen. Needs npm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from image_to_prompt.projection import REFINE

from ..experiments.block_prompts import BLOCKS, COMPOSITION, INNER, OUTER, STYLE, block_prompts
from ..experiments.fit_common import joined as with_deltas
from ..experiments.fit_common import ratio
from ..experiments.scores import share
from . import models
from .bench import Bench
from .editing import changed
from .evaluate import folder_of
from .measures import ERRORS, Outcome, joined, measured, median, shown
from .refine import STEPS
from .sampling import Miniature, noise_of
from .world import COLOURS, THINGS, TRAINED, Scenes, generator_of, render, sample

SEEDS = {"development": 77, "test": 78}
NOISES = 3  # pictures a reference and row
SETS = {
    "all": tuple(BLOCKS),
    "none": (),
    "inner blocks": INNER,
    "outer blocks": OUTER,
    "style": STYLE,
    "composition": COMPOSITION,
    "all but the first input": tuple(BLOCKS)[1:],
    "the first input": tuple(BLOCKS)[:1],
}
COLUMNS = ("judge", "ground", "artist")


def other_of(scene: Scenes, number: int) -> tuple[str, Scenes]:
    """A caption of another thing and ground, and the scene that it names."""
    (_, ground), (_, thing) = changed(scene, "ground", number), changed(scene, "thing", number)
    other = Scenes(**vars(scene) | {"thing": thing.thing, "ground": ground.ground})
    return f"a {THINGS[int(other.thing)]} on a {COLOURS[int(other.ground)]} background", other


def rows_of(bench: Bench, judge: models.Judge, scene: Scenes, number: int) -> dict[str, Outcome]:
    """Row name -> measurements of one reference, (NOISES,) each; of the caption by `text_...`."""
    alone = bench.images(render(scene))
    form = bench.refined(alone, REFINE[next(iter(REFINE))], STEPS)
    caption, other = other_of(scene, number)
    picture, base = bench.contexts(form, alone.embeds), bench.mini.states([caption])[0]
    picture, base = (prompt.expand(NOISES, -1, -1) for prompt in (picture, base))
    noise, same = noise_of(500 + number, NOISES), torch.zeros(NOISES, dtype=torch.long)
    found = {}
    with with_deltas(bench.denoiser, form.cross_attention.deltas):
        for name, blocks in SETS.items():
            with block_prompts(bench.mini.unet, dict.fromkeys(blocks, picture)):
                drawn = bench.mini.draw(base, noise)
            text = measured(drawn, other[same], judge)
            found[name] = measured(drawn, scene[same], judge)
            found[name] |= {f"text_{key}": text[key] for key in COLUMNS}
    return found


def hands(found: Outcome) -> torch.Tensor:
    """Whether the picture's thing, or the text's, is drawn by the reference's hand (M,).

    Drawings of neither thing are left out.
    """
    own, text = found["judge"], found["text_judge"] & ~found["judge"]
    return torch.cat([found["artist"][own], found["text_artist"][text]])


def print_table(parts: list[dict[str, Outcome]]) -> None:
    """Shares of the picture's and of the caption's, and errors beside those without the picture."""
    rows = {name: joined([part[name] for part in parts]) for name in parts[0]}
    print(f"{len(parts)} references, {NOISES} pictures each")
    for name, found in rows.items():
        cells = [f"{c} {shown(share(found[c]))}" for c in ("judge", "ground")]
        cells += [f"{c} {shown(share(found[c]))}" for c in ("text_judge", "text_ground")]
        cells.append(f"hand {shown(share(hands(found)))}")
        cells += [f"{c} {shown(median(found[c]), 1)}" for c in ERRORS]
        cells += [f"{c} x {shown(ratio(found[c], rows['none'][c]))}" for c in ERRORS]
        print(f"{name:24} " + "  ".join(cells), flush=True)


def main() -> None:
    """Measure the references that no earlier run has measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50, help="references")
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = "development" if options.development else "test"
    own = folder_of(options.weights)
    folder = own.parent.parent / "blocks" / split / own.name
    folder.mkdir(parents=True, exist_ok=True)
    mini, judge = Miniature.load(options.weights), models.load("judge", options.weights)
    bench, scenes = Bench.of(mini), sample(100, "test", generator_of(SEEDS[split]), TRAINED)
    for number in range(options.n):
        path = folder / f"{number:03}.pt"
        if not path.exists():
            torch.save(rows_of(bench, judge, scenes[number : number + 1], number), path)
            print(path.name, flush=True)
    files = sorted(folder.glob("*.pt"))[: options.n]
    print_table([torch.load(file, weights_only=True) for file in files])


if __name__ == "__main__":
    main()
