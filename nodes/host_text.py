"""Many short texts through the user's CLIP at once. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .host import eos_of
from .host_training import on_each

_AT_ONCE = 32


def caption_states(clip: Any, texts: Sequence[str]) -> Tensor:
    """The last-layer EOS states (M, D) of M texts of one chunk each, with a progress bar.

    Last-layer whatever CLIP Set Last Layer says: only these can be projected.
    """
    last = clip.clone()
    last.clip_layer(None)
    groups = [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]
    return torch.cat(on_each(groups, lambda group: _states(last, group)))


def _states(clip: Any, texts: Sequence[str]) -> Tensor:
    chunks = [clip.tokenize(text)["l"][0] for text in texts]
    # As the host encodes a long prompt: all chunks in one batch, then end to end.
    encoded = clip.encode_from_tokens({"l": chunks})
    states = encoded.reshape(len(chunks), len(chunks[0]), -1)  # (1, 77 n, D) -> (n, 77, D)
    eos = torch.tensor(eos_of({"l": chunks}), device=states.device)
    return states[torch.arange(len(chunks), device=states.device), eos].float()
