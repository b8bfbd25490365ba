"""Does the method work in the miniature? python tests miniature.experiments.evaluate --n 500

Prints one table and the editing curve, and writes both to build/evaluation.json. What is trained
takes longer, and is measured where asked for: --refine 100 (pictures, each refined on alone) and
--fit 300 (pictures that a fit is judged on).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from image_to_prompt.tests.miniature import models
from image_to_prompt.tests.miniature.experiments import fit_domain, fit_refine
from image_to_prompt.tests.miniature.experiments.editing import curve
from image_to_prompt.tests.miniature.experiments.rows import cases, contexts
from image_to_prompt.tests.miniature.experiments.scores import Score, score
from image_to_prompt.tests.miniature.sampling import GUIDANCE, STEPS, Miniature, noise_of
from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world.scenes import sample
from image_to_prompt.workflows.checkout import ROOT

COLUMNS = (
    "shape",
    "figure_colour",
    "ground_colour",
    "position_error",
    "size_error",
    "clip_similarity",
)
SCENE_SEED, NOISE_SEED = 11, 12


def table(mini: Miniature, n: int, options: argparse.Namespace) -> dict[str, dict[str, Score]]:
    """Every row's scores on n held-out scenes; all rows share scenes and starting noise."""
    second = models.load("second", options.weights)
    case = cases(mini, sample(n, "test", generator_of(SCENE_SEED, 0)), SCENE_SEED)
    noise = noise_of(NOISE_SEED, n)
    results = {}
    print(f"{'':14}" + "".join(f"{column:>23}" for column in COLUMNS))
    for name, context in contexts(mini, case).items():
        if options.rows and name not in options.rows:
            continue
        pictures = mini.draw(context(), noise, options.steps, options.guidance)
        results[name] = score(second, pictures, case.scenes, case.pictures)
        print(f"{name:14}" + "".join(f"{show(results[name][c]):>23}" for c in COLUMNS), flush=True)
    return results


def show(value: Score) -> str:
    """A score as text: value, low to high."""
    if value["value"] is None:
        return "unreadable"
    return f"{value['value']:.3f} [{value['low']:.3f} {value['high']:.3f}]"


def editing(mini: Miniature, n: int, options: argparse.Namespace) -> list[dict]:
    """The editing curve of the paper's closed form on n held-out scenes."""
    case = cases(mini, sample(n, "test", generator_of(SCENE_SEED, 1)), SCENE_SEED)
    points = curve(mini, case, options.edit_with, NOISE_SEED, options.steps, options.guidance)
    print(f"\nediting with {options.edit_with}, {n} pictures a point")
    for p in points:
        takes, stays = show(p["takes"]), show(p["stays"])
        print(f"{p['kind']:8} alpha {p['alpha']:.1f}  takes {takes}  the rest stays {stays}")
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=500, help="pictures a row")
    parser.add_argument("--edits", type=int, help="pictures a point of the editing curve: n / 5")
    parser.add_argument("--edit-with", default="closed_form", help="row whose form is edited")
    parser.add_argument("--refine", type=int, default=0, help="pictures to refine on")
    parser.add_argument("--fit", type=int, default=0, help="pictures that fits are judged on")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "evaluation.json")
    options = parser.parse_args()
    clock = time.monotonic()
    mini = Miniature.load(options.weights)
    results: dict = table(mini, options.n, options)
    edits = options.n // 5 if options.edits is None else options.edits
    report = {
        "settings": {
            "pictures": options.n,
            "steps": options.steps,
            "guidance": options.guidance,
            "scene_seed": SCENE_SEED,
            "noise_seed": NOISE_SEED,
            "edit_with": options.edit_with,
        },
        **results,
        "editing": editing(mini, edits, options) if edits else [],
        **(fit_refine.rows(options.refine, mini) if options.refine else {}),
        **(fit_domain.rows(options.fit, mini) if options.fit else {}),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")
    print(f"\n{time.monotonic() - clock:.0f} s; written to {options.out}")


if __name__ == "__main__":
    main()
