"""What the miniature of SDXL draws, row by row, on held-out pairs of thing and ground.

    python tests miniature.sdxl.evaluate --n 100

prints the shares of right things and grounds with the half width of their 95 % interval, the
paired difference of right things to the bound (caption's EOS and pads), and writes a contact
sheet and, where asked, a JSON file of every picture's result. In the rows of edits the thing or the
ground that was asked for counts as right.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from ..drawings import models as drawings
from ..drawings import oracle
from ..drawings.contact_sheet import save_sheet
from ..drawings.sampling import noise_of
from ..drawings.world import Scenes, generator_of, render, sample
from . import models
from .rows import rows_of
from .sampling import GUIDANCE, STEPS, Miniature
from .train_open_clip import RUNS

BOUND = "caption's EOS and pads"
COLUMNS = ("thing", "ground", "both", "judge")


def hits(pictures: Tensor, wanted: Scenes, judge: drawings.Judge) -> dict[str, Tensor]:
    """Whether thing, ground and both are right (N,), by the nearest real drawing and a judge."""
    thing = oracle.nearest_drawing(pictures, wanted.thing).thing == wanted.thing
    ground = oracle.read(pictures).ground == wanted.ground
    judged = judge(pictures)[0].argmax(dim=-1) == wanted.thing
    return {"thing": thing, "ground": ground, "both": thing & ground, "judge": judged}


def half_width(values: Tensor) -> float:
    """Half of the 95 % interval of a mean (N,), normal approximation."""
    return 1.96 * float(values.float().std() / len(values) ** 0.5)


def line(name: str, found: dict[str, Tensor], bound: dict[str, Tensor] | None) -> str:
    """One row of the table."""
    cells = [f"{float(found[k].float().mean()):.3f} +-{half_width(found[k]):.3f}" for k in COLUMNS]
    if bound is not None:
        apart = found["thing"].float() - bound["thing"].float()
        cells.append(f"{float(apart.mean()):+.3f} +-{half_width(apart):.3f}")
    return f"{name:32} " + "  ".join(cells)


def main() -> None:
    """Print the table of the options given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=55)
    parser.add_argument("--part", choices=("train", "test"), default="test")
    parser.add_argument("--rows", nargs="*", help="first letters of the rows, in order")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--sheet", type=Path, default=RUNS / "evaluation.png")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shown", type=int, default=16)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run(options)


@torch.no_grad()
def run(options: argparse.Namespace) -> None:
    """Draw all rows from the same noise and print each one's line."""
    miniature, judge = Miniature.load(options.weights), drawings.load("judge")
    scenes = sample(options.n, options.part, generator_of(options.seed))
    pictures = render(scenes)
    rows = rows_of(miniature, scenes, pictures, options.seed)
    names = [name for first in options.rows or [""] for name in rows if name.startswith(first)]
    noise, sheet, results = noise_of(options.seed, options.n), [pictures[: options.shown]], {}
    print(f"{'row':32} " + "  ".join(f"{name:13}" for name in (*COLUMNS, "thing - bound")))
    for name in names:
        drawn = miniature.draw(rows[name].prompts, noise, options.steps, options.guidance)
        results[name] = hits(drawn, rows[name].wanted, judge)
        print(line(name, results[name], results.get(BOUND)), flush=True)
        sheet.append(drawn[: options.shown])
        save_sheet(sheet, options.sheet)
    if options.json:
        plain = {row: {k: v.int().tolist() for k, v in r.items()} for row, r in results.items()}
        options.json.write_text(json.dumps(plain), encoding="utf-8")


if __name__ == "__main__":
    main()
