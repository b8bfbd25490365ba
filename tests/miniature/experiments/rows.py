"""The rows of the evaluation's table: ways of turning a picture or a caption into a prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from image_to_prompt.projection.closed_form.inverse import PAPER_CUTOFF
from image_to_prompt.projection.projector import PAPER_NORM
from image_to_prompt.projection.prompt.conditioning import assemble

from ..sampling import Miniature
from ..training.common import generator_of
from ..widening.widen_clip import K
from ..world.captions import FULL, write, write_random
from ..world.scenes import Scenes, combinations, render
from . import closed_forms as forms
from .centred_rows import centred_projections, control

# Repeating a channel K times makes a vector sqrt(K) times as long.
NORM = PAPER_NORM / math.sqrt(K)


@dataclass(frozen=True)
class Cases:
    """What every row starts from: N held-out scenes, their pictures, embeddings and captions."""

    scenes: Scenes
    pictures: Tensor
    embeds: Tensor
    captions: list[str]


def cases(mini: Miniature, scenes: Scenes, seed: int) -> Cases:
    """Cases of scenes, with one random full caption each."""
    triples = torch.stack([scenes.shape, scenes.figure, scenes.ground], dim=-1)
    pictures = render(scenes)
    captions = write_random(triples, generator_of(seed, 1))
    return Cases(scenes, pictures, mini.image_embeds(pictures), captions)


def corpus(mini: Miniature) -> Tensor:
    """End states (M, 96) of every full caption of every training combination: text alone."""
    captions = [write(template, t) for t in combinations("train") for template in FULL]
    states, ends = mini.states(captions)
    return states[torch.arange(len(states)), ends]


def contexts(mini: Miniature, case: Cases) -> dict[str, Callable[[], Tensor]]:
    """Row name -> function giving its conditions (N, 77, 96)."""
    states, ends = mini.states(case.captions)
    end = states[torch.arange(len(states)), ends]
    null = mini.states([""])[0]
    sos = null[0, 0]
    rows: dict[str, Callable[[], Tensor]] = {
        "caption": lambda: states,
        "caption_eos": lambda: assemble(sos, end),
    }
    for name, (form, norm) in closed_rows(mini).items():
        rows[name] = lambda form=form, norm=norm: assemble(
            sos, forms.apply(form, case.embeds, norm)
        )
    projections = centred_projections(mini, corpus(mini), NORM)
    for name, projection in projections.items():
        rows[name] = lambda projection=projection: assemble(sos, projection.apply(case.embeds))
    alone = control(projections)
    rows["control"] = lambda: assemble(sos, alone.expand(len(end), -1))
    rows["null"] = lambda: null.expand(len(states), -1, -1)
    return rows


def closed_rows(mini: Miniature) -> dict[str, tuple[forms.Affine, float]]:
    """Row name -> closed form and length of its prompt embeddings."""
    W, texts = mini.clip.text_projection.weight, corpus(mini)
    paper = forms.linear(W)
    return {
        "closed_form": (paper, NORM),
        "null_space": (forms.null_space(W, texts), NORM),
        "text_ridge": (forms.text_ridge(W, texts), NORM),
        "uncut": (forms.uncut(W), NORM),
        "transpose": (forms.linear(W, "transpose"), NORM),
        "ridge": (forms.linear(W, "ridge", PAPER_CUTOFF), NORM),
        "rtol_mistake": (forms.relative_cutoff(W), NORM),
        "half_norm": (paper, NORM / 2),
        "double_norm": (paper, NORM * 2),
    }
