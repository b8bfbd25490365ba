"""The rows of the evaluation: conditions for held-out pictures, by every form and rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from image_to_prompt.projection import Projection
from image_to_prompt.projection.families.readings import Readings

from ..drawings.captions import FULL, write
from ..drawings.joint_space import CUT
from ..drawings.rows import PICTURES as MOST_PICTURES
from ..drawings.rows import mean_pictures
from ..drawings.train_vision import image_embeds
from ..drawings.world import COLOURS, THINGS, Scenes, generator_of
from . import models
from .encoders import Prompts
from .models import L_WIDTH
from .readings import agreement, fit, means, states_of
from .sampling import Miniature
from .slots import edited, placed

PICTURES = (4, 16, MOST_PICTURES)
EDIT_WEIGHTS = (0.6, 1.0, 1.5)
NORM = 27.5 / 8**0.5  # the paper's length at this width
GROUND_EDIT, THING_EDIT = "on a {g} background", "a picture of a {t}"


@dataclass(frozen=True)
class Row:
    """Conditions of N pictures, and the scenes that they ask for."""

    prompts: Prompts
    wanted: Scenes


@dataclass(frozen=True)
class Forms:
    """Readings by name, and what they need: the empty prompt with its end slot.

    plain, by_pictures: from L's joint space; from_g: from G's.
    """

    plain: Readings
    from_g: Readings
    by_pictures: dict[int, Readings]
    empty: Prompts
    end: Tensor


def forms_of(miniature: Miniature) -> Forms:
    """The readings of all captions of training pairs, with 0 to 32 mean training pictures."""
    plain, from_g = fit(miniature.encoders)
    v = F.normalize(miniature.image_embeds(mean_pictures()), dim=-1)
    by_pictures = {count: plain.with_pictures(v[:count]) for count in PICTURES}
    empty, end = miniature.encoders.encode([""])
    return Forms(plain, from_g, by_pictures, empty, end)


def rows_of(miniature: Miniature, scenes: Scenes, pictures: Tensor, seed: int) -> dict[str, Row]:
    """All rows for held-out scenes and their pictures (N, 3, 96, 96)."""
    forms = forms_of(miniature)
    cosines = agreement(forms.plain, miniature.encoders)
    print("held-out captions, centred cosine:", {k: round(c, 3) for k, c in cosines.items()})
    v = F.normalize(miniature.image_embeds(pictures), dim=-1)
    rows = caption_rows(miniature, scenes, forms, seed) | picture_rows(miniature, forms, v)
    rows |= rows_from_g(forms, pictures)
    table = {name: Row(prompts, scenes) for name, prompts in rows.items()}
    return table | edit_rows(miniature, scenes, forms, v, seed)


def caption_rows(
    miniature: Miniature, scenes: Scenes, forms: Forms, seed: int
) -> dict[str, Prompts]:
    """What captions give: whole, their end and pad states (the bound), the end state alone."""
    caption, ends = miniature.encoders.encode(captions_of(scenes, seed))
    states = states_of(caption, ends)
    return {
        "caption": caption,
        "caption's EOS and pads": placed(states, forms.empty, forms.end, "P2"),
        "caption's EOS, clean pads": placed(states, forms.empty, forms.end, "P3"),
        "caption's EOS in all slots": placed(states, forms.empty, forms.end, "P1"),
    }


def captions_of(scenes: Scenes, seed: int) -> list[str]:
    """One random full caption per scene."""
    which = torch.randint(len(FULL), (len(scenes),), generator=generator_of(seed)).tolist()
    facts = zip(which, scenes.thing.tolist(), scenes.ground.tolist(), strict=True)
    return [write(FULL[w], thing, ground) for w, thing, ground in facts]


def picture_rows(miniature: Miniature, forms: Forms, v: Tensor) -> dict[str, Prompts]:
    """Readings of pictures' unit embeddings v (N, 96), rules, ablations and controls."""
    empty, end, best = forms.empty, forms.end, forms.by_pictures[MOST_PICTURES]
    rows = {"readings, no picture": placed(forms.plain.apply(v), empty, end)}
    for count, readings in forms.by_pictures.items():
        rows[f"readings, {count} pictures"] = placed(readings.apply(v), empty, end)
    whole = rows["readings, 32 pictures"]
    null = empty.expand(len(v))
    return rows | {
        "32 pictures, EOS in all slots": placed(best.apply(v), empty, end, "P1"),
        "32 pictures, clean pads": placed(best.apply(v), empty, end, "P3"),
        "pooled only": Prompts(null.context, whole.pooled),
        "cross-attention only": Prompts(whole.context, null.pooled),
        "27.5 in all slots": as_ported(miniature, empty, v),
        "mean state": placed(means(best, len(v)), empty, end),
        "null": null,
    }


def rows_from_g(forms: Forms, pictures: Tensor) -> dict[str, Prompts]:
    """Readings of the embeddings that G's own vision encoder gives pictures."""
    tower, plain = models.load("open_vision"), forms.from_g
    centred = plain.with_pictures(image_embeds(tower, mean_pictures()))
    v = image_embeds(tower, pictures)
    return {
        "from G, no picture": placed(plain.apply(v), forms.empty, forms.end),
        "from G, 32 pictures": placed(centred.apply(v), forms.empty, forms.end),
    }


def as_ported(miniature: Miniature, empty: Prompts, v: Tensor) -> Prompts:
    """What ports of the SD 1.5 method do: L's closed form at length 27.5 in all its slots.

    G's states and pooled are the empty prompt's.
    """
    clip = miniature.encoders.l
    form = Projection.from_text_projection(
        clip.text_projection.weight, clip.visual_projection.weight, cutoff=CUT, norm=NORM
    )
    context = empty.context.repeat(len(v), 1, 1)
    context[:, 1:, :L_WIDTH] = form.apply(v)[:, None]
    return Prompts(context, empty.pooled.expand(len(v), -1))


def edit_rows(
    miniature: Miniature, scenes: Scenes, forms: Forms, v: Tensor, seed: int
) -> dict[str, Row]:
    """Another ground, or another thing, by a text of three weights on the readings."""
    readings = forms.by_pictures[MOST_PICTURES]
    states, generator = readings.apply(v), generator_of(seed + 1)
    rows = {}
    for name, template, count in (
        ("ground", GROUND_EDIT, len(COLOURS)), ("thing", THING_EDIT, len(THINGS)),
    ):  # fmt: skip
        shift = torch.randint(1, count, (len(scenes),), generator=generator)
        new = (getattr(scenes, name) + shift) % count
        wanted = Scenes(**(vars(scenes) | {name: new}))
        asked = zip(wanted.thing.tolist(), wanted.ground.tolist(), strict=True)
        text, ends = miniature.encoders.encode([write(template, *pair) for pair in asked])
        for weight in EDIT_WEIGHTS:
            prompts = edited(states, readings, text, ends, weight)
            rows[f"edit: another {name}, {weight}"] = Row(prompts, wanted)
    return rows
