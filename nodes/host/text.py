"""Many short texts through the user's CLIP at once. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...projection import EncodedPrompts
from .api import eos_of
from .progress import map_with_progress

log = logging.getLogger(__name__)

_AT_ONCE = 32


def caption_states(clip: Any, texts: Sequence[str]) -> Tensor:
    """The last-layer EOS states (M, D) of M texts of one chunk each, with a progress bar.

    Last-layer whatever CLIP Set Last Layer says: only these can be projected.
    """
    last = clip.clone()
    last.clip_layer(None)
    return torch.cat(map_with_progress(_groups(texts), lambda group: _ends(*_encoded(last, group))))


def encoded_texts(clip: Any, texts: Sequence[str]) -> EncodedPrompts:
    """M texts of one chunk each as prompts are encoded, all 77 states of each."""
    parts = [_encoded(clip, group) for group in _groups(texts)]
    for text in texts:
        if len(clip.tokenize(text)["l"]) > 1:
            log.warning("only the first 75 tokens of a text are kept: %s", text)
    eos = [place for _, places in parts for place in places]
    return EncodedPrompts(torch.cat([states for states, _ in parts]), tuple(eos))


def _groups(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]


def _ends(states: Tensor, eos: Sequence[int]) -> Tensor:
    return states[torch.arange(len(eos)), torch.tensor(eos, device=states.device)]


def _encoded(clip: Any, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
    """States (M, 77, D) float32, and the first EOS of each."""
    chunks = [clip.tokenize(text)["l"][0] for text in texts]
    # As the host encodes a long prompt: all chunks in one batch, then end to end.
    encoded = clip.encode_from_tokens({"l": chunks})
    states = encoded.reshape(len(chunks), len(chunks[0]), -1)  # (1, 77 n, D) -> (n, 77, D)
    return states.float(), eos_of({"l": chunks})
