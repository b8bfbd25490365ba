"""Texts for training on SD 2.x and SDXL, encoded as the host does. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....projection import EncodedPrompts, Projection, first_eos
from ..progress import map_with_progress
from ..text import check_clip, token_ids
from .clip import check_family

log = logging.getLogger(__name__)


def check_text_encoders(clip: Any, projection: Projection) -> None:
    """Raise ImageToPromptError unless the CLIP is the one that the projection gives prompts for."""
    encoder, readings = projection.encoder, projection.readings
    if readings is None:
        check_clip(clip, encoder.text_width, encoder.name)
    else:
        check_family(clip, readings.family, readings.layer)


def texts_of_parts(
    clip: Any, texts: Sequence[str], keys: Sequence[str], pooled: bool
) -> EncodedPrompts:
    """M texts as prompts are encoded, cut to one chunk each, with a progress bar.

    keys: of the encoders' tokens; those of one text have their first EOS at the same place.
    pooled: whether the U-Net reads it. One at a time: the host pools a call's first chunk only.
    """
    parts = map_with_progress(texts, lambda text: _encoded(clip, text, keys))
    vectors = torch.cat([vector for _, _, vector in parts]) if pooled else None
    states = torch.cat([states for states, _, _ in parts])
    return EncodedPrompts(states, tuple(eos for _, eos, _ in parts), vectors)


def _encoded(clip: Any, text: str, keys: Sequence[str]) -> tuple[Tensor, int, Tensor]:
    """States (1, 77, D) float32, the first EOS, and pooled text (1, P) float32."""
    whole = clip.tokenize(text)
    if len(whole[keys[0]]) > 1:
        log.warning("only the first 75 tokens of a text are kept: %s", text)
    tokens = {key: chunks[:1] for key, chunks in whole.items()}
    states, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    return states.float(), first_eos(token_ids(tokens[keys[0]])[0]), pooled.float()
