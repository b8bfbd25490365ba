"""The editing curve: how often a text's change takes, and how often the rest stays."""

from __future__ import annotations

import torch
from torch import Tensor

from image_to_prompt.projection import Centred
from image_to_prompt.projection.prompt.conditioning import condition

from ..sampling import Miniature, noise_of
from ..world.oracle import agreement, read
from ..world.scenes import COLOURS, SHAPES, Scenes
from . import closed_forms as forms
from .centred_rows import centred_projections
from .rows import NORM, Cases, closed_rows, corpus
from .scores import Score, share

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
NODE_SPECS = ("colour", "shape")


def changed(scenes: Scenes, kind: str) -> tuple[list[str], Scenes]:
    """Edit texts, and the scenes as they should be after the edit; the rest is unspoken."""
    step = 1 + torch.arange(len(scenes)) % 3
    if kind == "shape":
        target = Scenes(**vars(scenes) | {"shape": (scenes.shape + step) % len(SHAPES)})
        return _figures(target), target
    colour = (scenes.figure + step) % len(COLOURS)
    colour = torch.where(colour == scenes.ground, (colour + 4) % len(COLOURS), colour)
    target = Scenes(**vars(scenes) | {"figure": colour})
    return _figures(target), target


def _figures(scenes: Scenes) -> list[str]:
    """What a user would write: the figure as it should become, nothing about the ground."""
    pairs = zip(scenes.figure.tolist(), scenes.shape.tolist(), strict=True)
    return [f"a {COLOURS[f]} {SHAPES[s]}" for f, s in pairs]


def edited(
    mini: Miniature,
    embeddings: Tensor,
    texts: list[str],
    alpha: float,
    centred: Centred | None = None,
) -> Tensor:
    """The editing rule of a projection, one text a picture: conditions (N, 77, 96)."""
    states, ends = mini.states(texts)
    rows = [
        condition(states[i : i + 1], [int(ends[i])], embeddings[i : i + 1], alpha, centred=centred)
        for i in range(len(texts))
    ]
    return torch.cat(rows)


def row_embeddings(mini: Miniature, case: Cases, row: str) -> tuple[Tensor, Centred | None]:
    """Prompt embeddings (N, 96) of a row of the table, and its centred form if it has one."""
    closed = closed_rows(mini)
    if row in closed:
        form, norm = closed[row]
        return forms.apply(form, case.embeds, norm), None
    projection = centred_projections(mini, corpus(mini), NORM)[row]
    return projection.apply(case.embeds), projection.centred


def curve(
    mini: Miniature,
    case: Cases,
    row: str,
    seed: int,
    steps: int,
    guidance: float,
) -> list[dict[str, str | float | Score]]:
    """For each kind of edit and each weight of the text: `takes` and `stays`."""
    embeddings, centred = row_embeddings(mini, case, row)
    noise = noise_of(seed, len(embeddings))
    points = []
    for kind in NODE_SPECS:
        texts, target = changed(case.scenes, kind)
        for alpha in ALPHAS:
            context = edited(mini, embeddings, texts, alpha, centred)
            pictures = mini.draw(context, noise, steps, guidance)
            found = agreement(read(pictures), target)
            pair = ("figure_colour", "shape")
            edit, rest = pair if kind == "colour" else pair[::-1]
            stays = found[rest] & found["ground_colour"]
            points.append(
                {"kind": kind, "alpha": alpha, "takes": share(found[edit]), "stays": share(stays)}
            )
    return points
