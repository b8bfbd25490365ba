"""The editing curve: how often a text's change takes, and how often the rest stays.

A text names another ground ("on a red background") or another thing ("a fox"), and nothing else.
The rest is the thing in the first case, the ground in the second. In the rows "left out" the
picture's own ground or thing is left out first, as by Image To Prompt Mix with *all but this*.

    python tests miniature.drawings.editing --n 300
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from image_to_prompt.projection import Centred, Projection, condition

from ..experiments.scores import share
from . import models, oracle
from .measures import DRAWS, picks, shown
from .rows import BEST, FITTED, PAPER, Cases, projections
from .sampling import Miniature, noise_of
from .words import left_out
from .world import COLOURS, THINGS, TRAINED, Scenes, generator_of, sample, visible

ALPHAS = (0.6, 0.9, 1.2, 1.6, 2.0)
KINDS = ("ground", "thing")
LEFT_OUT = "{}, left out"
FORMS = (PAPER, BEST, FITTED, LEFT_OUT.format(PAPER), LEFT_OUT.format(BEST))
SEED = 56
CLEAR = 0.6  # share of the drawing that the new ground must leave visible
Curve = dict[float, dict[str, Tensor]]  # by text weight: `outcome`


def changed(scenes: Scenes, kind: str, first: int = 0) -> tuple[list[str], Scenes]:
    """Edit texts, and the scenes as they should be after the edit.

    first: the number of the first scene; the edits of neighbouring numbers differ.
    """
    if kind == "thing":
        step = 1 + 5 * (1 + (first + torch.arange(len(scenes))) % 4)
        thing = (scenes.thing + step) % len(THINGS)
        target = Scenes(**vars(scenes) | {"thing": thing})
        return [f"a {THINGS[i]}" for i in thing.tolist()], target
    ground = torch.stack([_other_ground(scenes, i, first + i) for i in range(len(scenes))])
    target = Scenes(**vars(scenes) | {"ground": ground})
    return [f"on a {COLOURS[i]} background" for i in ground.tolist()], target


def _other_ground(scenes: Scenes, index: int, turn: int) -> Tensor:
    """A ground, other than the picture's, on which its drawing can be seen."""
    clear = visible()[scenes.thing[index], scenes.artist[index]] > CLEAR
    clear[scenes.ground[index]] = False
    choices = clear.nonzero()[:, 0]
    return choices[turn % len(choices)]


def edited(
    mini: Miniature, e: Tensor, texts: list[str], alpha: float, centred: Centred | None
) -> Tensor:
    """Conditions (N, 77, 96): prompt embeddings (N, 96) with one text each of weight `alpha`."""
    states, ends = mini.states(texts)
    rows = [
        condition(states[i : i + 1], [int(ends[i])], e[i : i + 1], alpha, centred=centred)
        for i in range(len(texts))
    ]
    return torch.cat(rows)


def outcome(pictures: Tensor, target: Scenes, kind: str, judge: models.Judge) -> dict[str, Tensor]:
    """Whether the edit took and whether the rest stayed, (N,) each; things by the judge."""
    with torch.no_grad():
        thing = judge(pictures)[0].argmax(dim=-1) == target.thing
    ground = oracle.read(pictures).ground == target.ground
    took, stayed = (ground, thing) if kind == "ground" else (thing, ground)
    return {"takes": took, "stays": stayed}


def curve_of(
    mini: Miniature, judge: models.Judge, case: Cases, form: Projection, kind: str,
    weights: Sequence[float] = ALPHAS, without_it: bool = False,
) -> Curve:  # fmt: skip
    """Outcomes of one form by ascending text weight, with the same noise in all.

    without_it: whether what the text changes is left out of the picture first.
    """
    texts, target = changed(case.scenes, kind)
    embeds = left_out(mini, form, case.embeds, kind) if without_it else case.embeds
    noise, e = noise_of(SEED, len(embeds)), form.apply(embeds)
    return {
        weight: outcome(
            mini.draw(edited(mini, e, texts, weight, form.centred), noise), target, kind, judge
        )
        for weight in weights
    }


def table(mini: Miniature, judge: models.Judge, n: int, forms: Sequence[str] = FORMS) -> list[dict]:
    """Print and return `takes` and `stays` of every form, kind and weight on n pictures."""
    case = Cases.of(mini, sample(n, "test", generator_of(SEED), TRAINED), SEED)
    known, points = projections(mini), []
    print(f"\nedits by a text, {n} held-out pictures a point")
    for kind in KINDS:
        curves = {}
        for name in forms:
            plain = next(form for form in known if name in (form, LEFT_OUT.format(form)))
            curves[name] = curve_of(mini, judge, case, known[plain], kind, without_it=name != plain)
        for name, curve in curves.items():
            for weight, found in curve.items():
                point = {key: share(values) for key, values in found.items()}
                cells = "  ".join(f"{key} {shown(value)}" for key, value in point.items())
                print(f"another {kind:7} {name:32} weight {weight:.1f}  {cells}", flush=True)
                points.append({"kind": kind, "form": name, "weight": weight} | point)
        points.append({"kind": kind} | equal_takes(curves))
        print(f"another {kind}: {shown_at_equal_takes(points[-1])}", flush=True)
    return points


def equal_takes(curves: dict[str, Curve]) -> dict:
    """How often the rest stays where the text takes equally often, by form.

    The level is the largest share of takes that all forms reach. Differences are to the first
    form, on the same pictures, with 95 % bootstrap intervals over pictures.
    """
    first, *others = curves
    level, stays = _at_equal_takes(curves, None)
    count = len(next(iter(curves[first].values()))["takes"])
    draws = [_at_equal_takes(curves, pick)[1] for pick in picks(count)]
    apart = {}
    for name in others:
        found = sorted(draw[name] - draw[first] for draw in draws)
        low, high = found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS)]
        apart[name] = {"value": stays[name] - stays[first], "low": low, "high": high}
    return {"level": level, "stays": stays, "apart": apart}


def shown_at_equal_takes(found: dict) -> str:
    """`equal_takes` as text."""
    cells = [f"{name} {value:.2f}" for name, value in found["stays"].items()]
    cells += [f"{name}: {shown(value)} apart" for name, value in found["apart"].items()]
    return f"where {found['level']:.2f} take, the rest stays: " + "  ".join(cells)


def _at_equal_takes(
    curves: dict[str, Curve], pick: Tensor | None
) -> tuple[float, dict[str, float]]:
    """The level and what stays there, of all pictures or of those picked (N,)."""
    shares = {
        name: [
            tuple(float(_some(point[key], pick).float().mean()) for key in ("takes", "stays"))
            for point in curve.values()
        ]
        for name, curve in curves.items()
    }
    level = min(max(takes for takes, _ in points) for points in shares.values())
    return level, {name: stays_at(points, level) for name, points in shares.items()}


def _some(values: Tensor, pick: Tensor | None) -> Tensor:
    return values if pick is None else values[pick]


def stays_at(curve: list[tuple[float, float]], level: float) -> float:
    """Linear interpolation of `stays` at the first weight whose `takes` reach `level`."""
    for (before, old), (takes, stays) in zip([curve[0], *curve], curve, strict=False):
        if takes >= level:
            part = 1.0 if takes == before else (level - before) / (takes - before)
            return old + part * (stays - old)
    return curve[-1][1]


def main() -> None:
    """Draw and print the editing curves alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="pictures a point")
    parser.add_argument("--forms", nargs="+", default=FORMS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table(Miniature.load(), models.load("judge"), options.n, options.forms)


if __name__ == "__main__":
    main()
