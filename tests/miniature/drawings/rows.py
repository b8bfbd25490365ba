"""The rows of the table: ways of turning a picture or a caption into a prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPModel

from image_to_prompt.projection import Projection, assemble, fit_from_text
from image_to_prompt.projection.projector import PAPER_NORM

from ..experiments import closed_forms as forms
from ..experiments.centred_rows import centred_rows, closed_projection, control
from ..widening.widen_clip import K
from .captions import FULL, write
from .gap import caption_states
from .sampling import Miniature
from .world import Scenes, generator_of, render, sample

# Repeating a channel K times makes a vector sqrt(K) times as long.
NORM = PAPER_NORM / math.sqrt(K)
RIDGE = 0.09
TEXT_RIDGE = 0.1  # of least squares with pictures; chosen on other pictures (seed 992)
PICTURES = 32  # of known pairs: their mean is the mean picture
_PICTURE_SEED = 81

PAPER, BEST = "paper, cut 0.3", "gap 1, 16 pictures"
FITTED = "text least squares, 32 pictures"
CAPTION, EOS = "caption", "caption's EOS state in all slots"
CENTRED = {
    "centred_16": BEST,
    "gap_half": "gap 0.5, 16 pictures",
    "centred": "gap 1, no picture",
}


@dataclass(frozen=True)
class Cases:
    """What every row starts from: N scenes, their pictures, embeddings and captions."""

    scenes: Scenes
    pictures: Tensor
    embeds: Tensor
    captions: list[str]

    @classmethod
    def of(cls, mini: Miniature, scenes: Scenes, seed: int) -> Cases:
        """Cases of scenes, with one random full caption each."""
        pictures = render(scenes)
        return cls(scenes, pictures, mini.image_embeds(pictures), captions_of(scenes, seed))


def captions_of(scenes: Scenes, seed: int) -> list[str]:
    """One random full caption per scene."""
    which = torch.randint(len(FULL), (len(scenes),), generator=generator_of(seed)).tolist()
    facts = zip(which, scenes.thing.tolist(), scenes.ground.tolist(), strict=True)
    return [write(FULL[w], thing, ground) for w, thing, ground in facts]


def mean_pictures() -> Tensor:
    """PICTURES pictures (N, 3, 96, 96) of known pairs, whose mean is the mean picture."""
    return render(sample(PICTURES, "train", generator_of(_PICTURE_SEED)))


def projections(mini: Miniature) -> dict[str, Projection]:
    """Row name -> the product's projection: the paper's and those that close the gap.

    Statistics are those of 300 captions and of 16 pictures of known pairs; least squares takes
    all captions of the known pairs, and the mean of 32 pictures.
    """
    states, embeds = caption_states(mini.clip, "train"), mini.image_embeds(mean_pictures())
    centred = centred_rows(mini.clip, states, NORM, embeds)
    named = {name: centred[key] for key, name in CENTRED.items()}
    paper, W = closed_projection(mini.clip, NORM), mini.clip.text_projection.weight
    return {PAPER: paper, **named, FITTED: fit_from_text(paper, states, embeds, W, TEXT_RIDGE)}


def linear_forms(clip: CLIPModel) -> dict[str, forms.Affine]:
    """Row name -> other closed forms, at the paper's length."""
    W = clip.text_projection.weight
    return {
        "text least squares": forms.text_ridge(W, caption_states(clip, "train")),
        "transpose": forms.linear(W, "transpose"),
        f"ridge {RIDGE}": forms.linear(W, "ridge", math.sqrt(RIDGE)),
        "uncut": forms.uncut(W),
    }


def embeddings(mini: Miniature, embeds: Tensor) -> dict[str, Tensor]:
    """Row name -> prompt embeddings (N, 96) of image embeddings (N, 96) by every closed form."""
    found = {name: form.apply(embeds) for name, form in projections(mini).items()}
    for name, form in linear_forms(mini.clip).items():
        found[name] = forms.apply(form, embeds, NORM)
    return found


def contexts(mini: Miniature, case: Cases) -> dict[str, Callable[[], Tensor]]:
    """Row name -> function giving its conditions (N, 77, 96)."""
    states, ends = mini.states(case.captions)
    end = states[torch.arange(len(states)), ends]
    null = mini.states([""])[0]
    rows: dict[str, Callable[[], Tensor]] = {
        CAPTION: lambda: states,
        EOS: lambda: assemble(null[0, 0], end),
    }
    for name, e in embeddings(mini, case.embeds).items():
        rows[name] = lambda e=e: assemble(null[0, 0], e)
    offset = control({"centred": projections(mini)[CENTRED["centred"]]})
    rows["mean EOS state alone, no picture"] = lambda: assemble(
        null[0, 0], offset.expand(len(end), -1)
    )
    rows["null"] = lambda: null.expand(len(states), -1, -1)
    return rows
