"""What the miniature draws, row by row, on held-out pairs of thing and ground.

    python tests miniature.drawings.evaluate --n 100

prints the share of right things and grounds, the artist's hand, and the errors of position and
size against the reference, and writes a contact sheet. A judge of -1 says that there is none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import models, oracle
from .captions import FULL, write
from .closed_forms import closed_forms
from .contact_sheet import save_sheet
from .gap import pair_states
from .sampling import Miniature, all_slots, noise_of
from .sources import BUILD
from .train_judge import share
from .world import SIDE, TRAINED, Scenes, generator_of, render, sample

COLUMNS = ("thing", "ground", "both", "artist", "position", "size", "likeness", "judge")


def captions_of(scenes: Scenes, generator: torch.Generator) -> list[str]:
    """One random full caption per scene."""
    which = torch.randint(len(FULL), (len(scenes),), generator=generator).tolist()
    facts = zip(which, scenes.thing.tolist(), scenes.ground.tolist(), strict=True)
    return [write(FULL[w], thing, ground) for w, thing, ground in facts]


def contexts(
    miniature: Miniature, scenes: Scenes, pictures: Tensor, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Conditions (N, 77, 96) by row, and the closed forms' e (N, 96)."""
    states, ends = miniature.states(captions_of(scenes, generator_of(seed)))
    null = miniature.states([""])[0][0]
    eos = states[torch.arange(len(states)), ends]
    v = F.normalize(miniature.image_embeds(pictures), dim=-1)
    forms = closed_forms(miniature.clip, v)
    rows = {"caption": states, "caption's EOS state": all_slots(null[0], eos)}
    rows |= {name: all_slots(null[0], e) for name, e in forms.items()}
    return rows | {"null": null.expand(len(states), -1, -1)}, forms


def score(pictures: Tensor, scenes: Scenes, judge: models.Judge | None) -> dict[str, float]:
    """The columns of the table.

    thing and artist by the nearest real drawing, likeness its correlation; artist is the hand of
    the nearest drawing of the thing asked for; position and size are median errors in pixels;
    judge is the share of right things by the trained judge.
    """
    seen, nearest = oracle.read(pictures), oracle.nearest_drawing(pictures, scenes.thing)
    thing, ground = nearest.thing == scenes.thing, seen.ground == scenes.ground
    away = torch.hypot(seen.x - SIDE * scenes.x, seen.y - SIDE * scenes.y)
    judged = judge(pictures)[0].argmax(dim=-1) == scenes.thing if judge else torch.tensor(-1.0)
    return {
        "thing": share(thing),
        "ground": share(ground),
        "both": share(thing & ground),
        "artist": share(nearest.artist_of_thing == scenes.artist),
        "position": float(away.median()),
        "size": float((seen.size - SIDE * scenes.size).abs().median()),
        "likeness": float(nearest.correlation.mean()),
        "judge": share(judged),
    }


def load_judge(folder: Path) -> models.Judge | None:
    """The trained judge, or None where its weights are missing."""
    there = (folder / "judge.safetensors").exists()
    return models.load("judge", folder) if there else None


@torch.no_grad()
def print_cosines(miniature: Miniature, scenes: Scenes, forms: dict[str, Tensor]) -> None:
    """Without the U-Net: cosines of e, and whether the nearest EOS state is the right one."""
    states = F.normalize(pair_states(miniature.clip), dim=-1)
    centred = F.normalize(states - states.mean(dim=0), dim=-1)
    row = 8 * scenes.thing + scenes.ground
    print(f"{'form':30} {'own':>6} {'all':>6} {'among':>6} {'top-1':>6} {'centred':>7}")
    for name, e in forms.items():
        unit = F.normalize(e, dim=-1)
        shifted = F.normalize(unit - unit.mean(dim=0), dim=-1)
        values = (
            (unit * states[row]).sum(dim=-1).mean(), (unit @ states.T).mean(),
            unit.mean(dim=0).square().sum(), share((unit @ states.T).argmax(dim=-1) == row),
            share((shifted @ centred.T).argmax(dim=-1) == row),
        )  # fmt: skip
        print(f"{name:30} " + " ".join(f"{float(value):6.3f}" for value in values))


@torch.no_grad()
def main() -> None:
    """Draw all rows from the same noise and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=55)
    parser.add_argument("--part", choices=("train", "test"), default="test")
    parser.add_argument("--rows", nargs="*", help="the first letters of the rows to draw")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--sheet", type=Path, default=BUILD / "evaluation.png")
    parser.add_argument("--shown", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    miniature, judge = Miniature.load(options.weights), load_judge(options.weights)
    scenes = sample(options.n, options.part, generator_of(options.seed), TRAINED)
    pictures = render(scenes)
    rows, forms = contexts(miniature, scenes, pictures, options.seed)
    print_cosines(miniature, scenes, forms)
    if options.rows:
        first = tuple(options.rows)
        rows = {name: row for name, row in rows.items() if name.startswith(first)}
    noise, sheet = noise_of(options.seed, options.n), [pictures[: options.shown]]
    print(f"{'row':30} " + " ".join(f"{name:>8}" for name in COLUMNS))
    reconstructed = miniature.decode(miniature.encode(pictures))
    for name, row in {"autoencoder": None, **rows}.items():
        drawn = reconstructed if row is None else miniature.draw(row, noise)
        values = score(drawn, scenes, judge)
        print(f"{name:30} " + " ".join(f"{values[k]:8.3f}" for k in COLUMNS), flush=True)
        sheet.append(drawn[: options.shown])
        save_sheet(sheet, options.sheet)


if __name__ == "__main__":
    main()
