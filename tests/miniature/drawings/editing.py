"""The editing curve: how often a text's change takes, and how often the rest stays.

A text names another ground ("on a red background") or another thing ("a fox"), and nothing else.
The rest is the thing in the first case, the ground in the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from image_to_prompt.projection import Centred, condition

from ..experiments.scores import share
from . import models, oracle
from .measures import shown
from .rows import BEST, CENTRED, PAPER, Cases, projections
from .sampling import Miniature, noise_of
from .world import COLOURS, THINGS, TRAINED, Scenes, generator_of, sample, visible

ALPHAS = (0.3, 0.6, 0.9, 1.2, 1.6)
KINDS = ("ground", "thing")
FORMS = (PAPER, BEST, CENTRED["gap_half"])
SEED = 56
CLEAR = 0.6  # share of the drawing that the new ground must leave visible


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


def table(mini: Miniature, judge: models.Judge, n: int) -> list[dict]:
    """Print and return `takes` and `stays` of every form, kind and weight on n pictures."""
    case = Cases.of(mini, sample(n, "test", generator_of(SEED), TRAINED), SEED)
    noise, forms, points = noise_of(SEED, n), projections(mini), []
    print(f"\nedits by a text, {n} held-out pictures a point")
    for kind in KINDS:
        texts, target = changed(case.scenes, kind)
        for name in FORMS:
            for alpha in ALPHAS:
                form = forms[name]
                context = edited(mini, form.apply(case.embeds), texts, alpha, form.centred)
                found = outcome(mini.draw(context, noise), target, kind, judge)
                point = {key: share(values) for key, values in found.items()}
                cells = "  ".join(f"{key} {shown(value)}" for key, value in point.items())
                print(f"another {kind:7} {name:22} weight {alpha:.1f}  {cells}", flush=True)
                points.append({"kind": kind, "form": name, "weight": alpha} | point)
    return points + equal_takes(points)


def equal_takes(points: list[dict]) -> list[dict]:
    """How often the rest stays at the share of takes that all forms reach, by kind."""
    found = []
    for kind in KINDS:
        curves = {
            name: [
                (p["takes"]["value"], p["stays"]["value"])
                for p in points
                if p["kind"] == kind and p["form"] == name
            ]
            for name in FORMS
        }
        level = min(max(takes for takes, _ in curve) for curve in curves.values())
        stays = {name: stays_at(curve, level) for name, curve in curves.items()}
        cells = "  ".join(f"{name} {value:.2f}" for name, value in stays.items())
        print(f"another {kind}: where {level:.2f} take, the rest stays: {cells}")
        found.append({"kind": kind, "level": level, "stays": stays})
    return found


def stays_at(curve: list[tuple[float, float]], level: float) -> float:
    """Linear interpolation of `stays` at the first weight whose `takes` reach `level`."""
    for (before, old), (takes, stays) in zip([curve[0], *curve], curve, strict=False):
        if takes >= level:
            part = 1.0 if takes == before else (level - before) / (takes - before)
            return old + part * (stays - old)
    return curve[-1][1]
