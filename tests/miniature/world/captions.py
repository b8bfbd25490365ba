"""Captions: name shape and colours, never position, size or rotation.

FULL templates name everything, PARTIAL ones leave something out. {s} shape, {f} figure colour,
{g} ground colour. Every word is one token of the CLIP vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scenes import COLOURS, SHAPES

FULL = (
    "a {f} {s} on a {g} background",
    "{f} {s} on {g}",
    "{f} {s}, {g} background",
    "a picture of a {f} {s} on a {g} background",
    "a photo of a {f} {s} in front of a {g} wall",
    "picture of a {s}, {f}, in front of {g}",
    "a {s} in {f} on a plain {g} ground",
    "on a {g} background there is a {f} {s}",
    "a {g} background with a {f} {s}",
    "{g} background, {f} {s}",
    "the {s} is {f} and the background is {g}",
    "the background is {g} and the {s} is {f}",
    "there is one {s} here, it is {f}, and everything else is {g}",
    "a simple painting of a single {f} {s} on {g} paper",
    "a {g} picture, and in it a {f} {s}",
    "we see a {f} {s} against {g}",
    "a drawing that shows a {f} figure, a {s}, with plain {g} all around",
    "a {s} with {f} colour before a {g} surface",
    "a {g} canvas with one {f} {s} on it",
    "minimal graphic, solid {f} {s} over flat {g}",
    "digital artwork of a {f} {s}, clean {g} background, flat colour",
    "just a {s}. the {s} is {f}. the rest is {g}.",
    "all is {g} here, only the {s} is {f}",
    "something {f} in the shape of a {s} on {g}",
)
PARTIAL = (
    "a {f} {s}",
    "{s}",
    "a picture of a {s}",
    "a {s} on a {g} background",
    "{g} background",
    "a plain {g} background",
    "something {f} on {g}",
    "a {f} figure on a {g} background",
    "something {f}",
)


def write(template: str, triple: Tensor) -> str:
    """The caption of one (shape, figure, ground) triple."""
    s, f, g = triple.tolist()
    return template.format(s=SHAPES[s], f=COLOURS[f], g=COLOURS[g])


def write_random(triples: Tensor, generator: torch.Generator, partial: float = 0.0) -> list[str]:
    """One random caption per (N, 3) triple; a `partial` share of them leaves something out."""
    draws = torch.rand(len(triples), 2, generator=generator).tolist()
    captions = []
    for triple, (kind, which) in zip(triples, draws, strict=True):
        templates = PARTIAL if kind < partial else FULL
        captions.append(write(templates[int(which * len(templates))], triple))
    return captions
