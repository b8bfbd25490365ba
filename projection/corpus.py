"""Captions to fit on where the user has none: varied sentences put together from small lists."""

from __future__ import annotations

COUNT = 4000


def captions(count: int = COUNT, seed: int = 0) -> list[str]:
    """`count` different short captions in English, the same for the same seed."""
    raise NotImplementedError
