"""Readings of a model family that say nothing: for wiring and for speed."""

from __future__ import annotations

import torch

from image_to_prompt.projection import Family, Readings, fit_readings


def readings_of(family: Family, pooled_width: int) -> Readings:
    """Readings of random captions, whose states depend on their joint embeddings linearly."""
    joint = torch.randn(1000, 768, generator=_generator(1))
    states = {}
    for number, name in enumerate(family.reading_names):
        key = name.partition(".")[0]
        width = pooled_width if name == "pooled" else family.part(key).width
        matrix = torch.randn(768, width, generator=_generator(2 + number)) / 768**0.5
        states[name] = 0.5 + joint @ matrix
    return fit_readings(family, joint, states)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
