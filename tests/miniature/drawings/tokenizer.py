"""A word-level stand-in for the CLIP tokenizer, for the words of this world only.

Every word is one token of CLIP's byte pair vocabulary and has its id there, so the host's
tokenizer gives the same ids.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

LENGTH = 77
START, END = 49406, 49407
TABLE = Path(__file__).with_name("vocabulary.json")


def load_table() -> dict[str, int]:
    """Word -> CLIP id."""
    return json.loads(TABLE.read_text(encoding="ascii"))


def words_of(caption: str) -> list[str]:
    """Words and punctuation marks of a caption, lower case."""
    return re.findall(r"[a-z]+|[.,]", caption.lower())


class Tokenizer:
    """Captions to (N, 77) CLIP ids: start, words, then end tokens to the last slot."""

    def __init__(self) -> None:
        self.ids = load_table()

    def __call__(self, captions: list[str]) -> Tensor:
        """Ids (N, 77), int64; ValueError for a word outside the table or a long caption."""
        return torch.stack([self._encode(caption) for caption in captions])

    def _encode(self, caption: str) -> Tensor:
        words = words_of(caption)
        unknown = [word for word in words if word not in self.ids]
        if unknown:
            raise ValueError(f"expected words of the world of drawings; got {unknown}")
        if len(words) > LENGTH - 2:
            raise ValueError(f"expected at most {LENGTH - 2} words; got {len(words)}")
        ids = torch.full((LENGTH,), END)
        ids[: len(words) + 1] = torch.tensor([START] + [self.ids[word] for word in words])
        return ids


def end_positions(ids: Tensor) -> Tensor:
    """Slot of the first end token, (N,)."""
    return (ids == END).int().argmax(dim=-1)
