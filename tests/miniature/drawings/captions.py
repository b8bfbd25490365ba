"""Captions: name thing and ground, wholly or partly, never artist, position or size.

FULL templates name both, PARTIAL ones leave something out. {t} thing, {g} ground colour. Every
word is one token of the CLIP vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from .world import COLOURS, THINGS

FULL = (
    "a {t} on a {g} background",
    "{t} on {g}",
    "{t}, {g} background",
    "a picture of a {t} on a {g} background",
    "a drawing of a {t} in front of a {g} wall",
    "an illustration of a {t}, {g} backdrop",
    "on a {g} background there is a {t}",
    "a {g} background with a {t}",
    "{g} background, {t}",
    "the background is {g} and in front is a {t}",
    "a {t} sticker on {g} paper",
    "a cute {t}, and everything else is {g}",
    "a {g} picture, and in it a {t}",
    "we see a {t} against {g}",
    "a {g} canvas with one {t} on it",
    "an emoji of a {t}, plain {g} all around",
    "just a {t}. the rest is {g}.",
    "icon of a {t} over flat {g}",
    "a cartoon {t} on a {g} ground",
    "this shows a {t}, and behind it all is {g}",
)
PARTIAL = (
    "a {t}",
    "{t}",
    "a picture of a {t}",
    "an illustration of a {t}",
    "{g} background",
    "on a {g} background",
    "a plain {g} picture",
    "everything is {g}",
)
TEMPLATES = (*FULL, *PARTIAL)
# Words that only prompts of users and of later experiments need.
OTHER = (
    "two", "both", "and", "next", "to", "beside", "at", "some", "photo", "small", "nice",
    "lovely", "color", "colour", "colored", "coloured", "poster", "image", "art", "simple",
    "painted", "please", "me", "what", "that", "before", "surface", "sheet", "digital",
    "artwork", "style", "with", "without", "no", "not", "only", "green", "red",
)  # fmt: skip


def write(template: str, thing: int, ground: int) -> str:
    """The caption of one (thing, ground) pair."""
    return template.format(t=THINGS[thing], g=COLOURS[ground])


def names(template: str) -> tuple[bool, bool]:
    """Whether a template names the thing and the ground."""
    return "{t}" in template, "{g}" in template


def all_captions(pair: Tensor) -> list[str]:
    """The captions of one (2,) pair in the order of TEMPLATES."""
    thing, ground = pair.tolist()
    return [write(template, thing, ground) for template in TEMPLATES]
