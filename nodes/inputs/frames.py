"""Frames of an animation on widgets: key frames, and values that change from frame to frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...projection import ImageToPromptError
from ...projection.errors import quoted
from .checks import check_text

APART = 16  # frames between key pictures where none are named


def parse_frames(text: object, count: int) -> list[int]:
    """Key frames from '0, 24, 48'; of an empty text `count` frames, 16 apart.

    Raises ImageToPromptError for what is no whole number.
    """
    words = re.split(r"[\s,;]+", check_text(text, "frames").strip(" \t\r\n,;"))
    if words == [""]:
        return [APART * index for index in range(count)]
    if not all(re.fullmatch(r"[+-]?[0-9]{1,9}", word) for word in words):
        raise ImageToPromptError(
            "whole numbers separated by commas, one per picture", quoted(text), "Correct frames."
        )
    return [int(word) for word in words]


def by_row(values: Sequence[Any], rows: int, name: str) -> list[Any]:
    """One value for each row; a shorter list repeats its last. ImageToPromptError for more."""
    if len(values) > rows:
        raise ImageToPromptError(
            f"at most one {name} for each of {rows} frames", f"{len(values)}", f"Correct {name}."
        )
    return [values[min(index, len(values) - 1)] for index in range(rows)]
