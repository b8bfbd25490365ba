"""The user's CLIP text encoder: one text as core encodes it, many short ones at once.

Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.ops
import torch
from torch import Tensor

from ...projection import EncodedPrompts, ImageToPromptError, first_eos
from .families.names import model_of
from .progress import map_with_progress

log = logging.getLogger(__name__)

_AT_ONCE = 32
_SD1_ADVICE = "Connect the CLIP of an SD 1.x checkpoint (socket clip)."
_FAMILY_ADVICE = (
    "Connect the CLIP of an SD 1.x checkpoint (socket clip), or make the projection for {}: "
    "connect this CLIP to LoadProjection as well (socket clip)."
)


@dataclass(frozen=True, eq=False)
class EncodedText:
    """One text through the user's CLIP, as core CLIPTextEncode gives it.

    entries: [states (1, 77 n, D), extras] for each entry of the conditioning; more than one
    only where hooks schedule the encoder. eos: first EOS of each of the n chunks.
    """

    entries: list[tuple[Tensor, dict[str, Any]]]
    eos: list[int]


def check_clip(clip: Any, text_width: int, encoder_name: str) -> None:
    """Raise ImageToPromptError unless `clip` is an SD 1.x text encoder of this width."""
    if clip is None:
        raise ImageToPromptError(
            "a CLIP", "none: the checkpoint holds no text encoder", _SD1_ADVICE
        )
    kinds = sorted(clip.tokenize(""))
    if kinds != ["l"]:
        likely = model_of(set(kinds))
        raise ImageToPromptError(
            f"the text encoder of SD 1.x ({encoder_name})",
            f"{likely} text encoder (parts: {', '.join(kinds)})",
            _SD1_ADVICE if likely not in ("SDXL", "SD 2.x") else _FAMILY_ADVICE.format(likely),
        )
    width = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight.shape[1]
    if width != text_width:
        raise ImageToPromptError(
            f"a text encoder of width {text_width} ({encoder_name})", f"width {width}", _SD1_ADVICE
        )


def encode_text(clip: Any, text: str) -> EncodedText:
    """Encode as core CLIPTextEncode does, clip skip, weights, hooks and long prompts included."""
    tokens = clip.tokenize(text)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    return EncodedText([(c, extras) for c, extras in conditioning], eos_of(tokens))


def eos_of(tokens: dict[str, list]) -> list[int]:
    """First EOS of each chunk of what `clip.tokenize` gives; the encoders of SDXL agree."""
    chunks = tokens["l"] if "l" in tokens else next(iter(tokens.values()))
    return [first_eos(ids) for ids in token_ids(chunks)]


def token_ids(chunks: Sequence[Sequence[Any]]) -> list[list[int]]:
    """The token ids of chunks of weighted tokens; -1 for a textual inversion's tensor."""
    return [
        [-1 if isinstance(token, (Tensor, dict)) else token for token, *_ in chunk]
        for chunk in chunks
    ]


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


def _groups(texts: Sequence[Any]) -> list[Sequence[Any]]:
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


def eos_states(clip: Any, texts: Sequence[str]) -> Tensor:
    """As `caption_states`, of unweighted words and without the positions after each text's EOS.

    A state depends on what stands before it alone (causal mask), so texts of similar length are
    cut to the longest of them and encoded together: a third of the work for short captions.
    """
    chunks = [[token for token, *_ in clip.tokenize(text)["l"][0]] for text in texts]
    ends = [eos_of({"l": [[(token,) for token in chunk]]})[0] for chunk in chunks]
    order = sorted(range(len(texts)), key=ends.__getitem__)
    clip.load_model()
    parts = map_with_progress(
        _groups(order),
        lambda group: _short_states(clip, [chunks[i] for i in group], [ends[i] for i in group]),
    )
    states = torch.cat(parts)
    return states[torch.tensor(order).argsort()]


def _short_states(clip: Any, chunks: Sequence[Sequence[Any]], ends: Sequence[int]) -> Tensor:
    """EOS states (M, D) float32 of chunks of tokens that are cut behind the last EOS of them."""
    encoder, device = clip.cond_stage_model.clip_l, clip.patcher.load_device
    length = max(ends) + 1
    model = encoder.transformer.text_model
    x, mask = encoder_inputs(encoder, [list(chunk[:length]) for chunk in chunks], device)
    states = model.final_layer_norm(model.encoder(x, mask=mask)[0])
    return _ends(states, ends).float().cpu()


def encoder_inputs(
    encoder: Any, chunks: Sequence[list[Any]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Embedded tokens (M, L, D) and the causal mask (L, L) of M equally long chunks of tokens."""
    length = len(chunks[0])
    words = encoder.process_tokens(list(chunks), device)[0]
    positions = encoder.transformer.text_model.embeddings.position_embedding.weight[:length]
    x = words + comfy.ops.cast_to(positions, dtype=words.dtype, device=words.device)
    lowest = -torch.finfo(x.dtype).max
    return x, torch.full((length, length), lowest, dtype=x.dtype, device=x.device).triu_(1)
