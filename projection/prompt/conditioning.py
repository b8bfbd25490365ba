"""From prompt embeddings to the conditioning a diffusion model takes (SD-IPC, sections 3 and 4).

    no text     [SOS, e, e, ..., e]
    text        [SOS, word, ..., word, e + a T_k, ..., e + a T_76]     k: the first EOS

In SD 1.x every slot from the first EOS on is an EOS state of the whole sentence (pads are EOS
tokens), so these are the slots the picture takes. SOS and words stay untouched. A prompt longer
than 77 tokens is encoded in chunks of 77, each with its own SOS and EOS; each is edited alike.

A centred projection at gap g has g k o in every prompt embedding, see `closed_form.centred`; text
is added to what is left, so that this common part is not added a second time (ours):

    x = e - g k o + a (T - g k o)
    add                  g k o + x (|e - g k o| / |x|)^g      g 0: e + a T as above
    add, keep length     g k o + x (|e - g k o| / |x|)        g 0: |e| unit(e + a T)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from ..tensors import described, is_plain

CHUNK = 77
PAPER_TEXT_WEIGHT = 0.6


class CommonPart(Protocol):
    """What all prompt embeddings of a projection share; `closed_form.centred.Centred` has it."""

    @property
    def gap(self) -> float:
        """g, 0..1."""
        ...

    @property
    def common(self) -> Tensor:
        """g k o (D,), last-layer text state."""
        ...


def assemble(sos: Tensor, embeddings: Tensor, length: int = CHUNK) -> Tensor:
    """Conditioning (B, length, D): the SOS state, then each picture's embedding repeated.

    sos: (D,), the text encoder's own state at position 0, equal for every prompt (causal mask).
    embeddings: (B, D), last-layer text states, as `Projection.apply` gives them.
    """
    _check_widths(sos, embeddings)
    repeated = embeddings[:, None].expand(-1, length - 1, -1)  # (B, D) -> (B, L-1, D)
    first = sos.to(embeddings).expand(len(embeddings), 1, -1)
    return torch.cat([first, repeated], dim=1)


def edit(
    text_states: Tensor,
    eos: Sequence[int],
    embeddings: Tensor,
    text_weight: float,
    centred: CommonPart | None = None,
) -> Tensor:
    """Picture and text: e + a T from each chunk's first EOS on, all before it untouched.

    text_states: (1, 77 n, D), the encoded text, chunk after chunk.
    eos: for each of the n chunks, the position of its first EOS token within the chunk, 1..76.
    embeddings: (B, D). text_weight: a; 0 drops the text from the picture's slots, 0.6 is the
    authors' script. centred: of the projection that gave the embeddings; see the module.
    Returns (B, 77 n, D). Without a gap the sum is not rescaled, as in the script.
    """
    slots = image_slots(eos, text_states)
    _check_widths(text_states[0, 0], embeddings)
    if centred is not None and centred.gap > 0:
        mixed = _centred_sum(text_states, embeddings, text_weight, centred, centred.gap)
        return torch.where(slots[None, :, None], mixed, text_states)
    mixed = embeddings[:, None] + text_weight * text_states  # (B, 1, D) + (1, L, D)
    return torch.where(slots[None, :, None], mixed, text_states)


def edit_at_norm(
    text_states: Tensor,
    eos: Sequence[int],
    embeddings: Tensor,
    text_weight: float,
    centred: CommonPart | None = None,
) -> Tensor:
    """As `edit`, with every picture slot scaled back to the length of its embedding (ours)."""
    slots = image_slots(eos, text_states)
    _check_widths(text_states[0, 0], embeddings)
    if centred is not None and centred.gap > 0:
        mixed = _centred_sum(text_states, embeddings, text_weight, centred, 1.0)
        return torch.where(slots[None, :, None], mixed, text_states)
    mixed = embeddings[:, None] + text_weight * text_states
    length = embeddings.norm(dim=-1)[:, None, None]
    scaled = length * mixed / mixed.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where(slots[None, :, None], scaled, text_states)


def _centred_sum(
    text_states: Tensor, embeddings: Tensor, text_weight: float, centred: CommonPart, power: float
) -> Tensor:
    """Sums (B, 77 n, D) about the common part, their length kept to a power of 0..1."""
    common = centred.common.to(embeddings)
    deviation = embeddings - common
    if text_weight == 0:
        return embeddings[:, None].expand(-1, text_states.shape[1], -1)
    mixed = deviation[:, None] + text_weight * (text_states - common)
    kept = deviation.norm(dim=-1)[:, None, None] / mixed.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return common + mixed * kept**power


# How text and picture share a slot.
BLENDS: dict[str, Callable[[Tensor, Sequence[int], Tensor, float, CommonPart | None], Tensor]] = {
    "add": edit,
    "add, keep length": edit_at_norm,
}


def has_words(eos: Sequence[int]) -> bool:
    """Whether a text has any token of its own, given each chunk's first EOS."""
    return list(eos) != [1]


def condition(
    text_states: Tensor,
    eos: Sequence[int],
    embeddings: Tensor,
    text_weight: float = PAPER_TEXT_WEIGHT,
    blend: str = "add",
    centred: CommonPart | None = None,
) -> Tensor:
    """Conditioning (B, 77 n, D) of pictures with a text, or without one if it has no words.

    Arguments as for `edit`; blend: a name from `BLENDS`; centred: `Projection.centred`. An empty
    text is not an edit: the picture then stands alone, as `assemble` has it, whatever
    `text_weight` is.
    """
    if blend not in BLENDS:
        raise ImageToPromptError(
            f"a blend among {', '.join(map(repr, BLENDS))}", repr(blend), "Choose one of them."
        )
    _check_chunks(eos, text_states)
    if not has_words(eos):
        return assemble(text_states[0, 0], embeddings, text_states.shape[1])
    return BLENDS[blend](text_states, eos, embeddings, text_weight, centred)


def image_slots(eos: Sequence[int], text_states: Tensor) -> Tensor:
    """Mask (77 n,) of the slots that the picture takes: from each chunk's first EOS on."""
    _check_chunks(eos, text_states)
    first = torch.tensor(list(eos), device=text_states.device)
    position = torch.arange(CHUNK, device=text_states.device)
    return (position[None] >= first[:, None]).reshape(-1)  # (n, 77) -> (77 n,)


def apply_strength(conditioning: Tensor, null: Tensor, strength: float) -> Tensor:
    """null + s (cond - null), slot by slot: the rule the host applies to token weights.

    conditioning: (B, 77 n, D). null: (1, 77, D), the encoded empty prompt. s = 0 is the null
    prompt and s = 1 the conditioning, both bit for bit; above 1 exaggerates; below 0 turns away.
    """
    if strength == 1:
        return conditioning
    if strength == 0:
        return null.expand(len(conditioning), -1, -1).clone()
    tiled = null.repeat(1, conditioning.shape[1] // null.shape[1], 1)
    return tiled + strength * (conditioning - tiled)


def first_eos(token_ids: Sequence[int], eos_id: int = 49407) -> int:
    """Position of the first EOS in one chunk of token ids; pads are EOS tokens too in SD 1.x."""
    ids = list(token_ids)
    if eos_id not in ids[1:]:
        raise ImageToPromptError(
            f"a chunk of tokens that ends in EOS ({eos_id})",
            f"{len(ids)} tokens without one",
            "Use the text encoder of an SD 1.x model.",
            "text encoder",
        )
    return ids.index(eos_id, 1)


def _check_chunks(eos: Sequence[int], text_states: Tensor) -> None:
    whole = is_plain(text_states) and text_states.ndim == 3 and text_states.numel() > 0
    fits = whole and text_states.shape[1] == CHUNK * len(eos)
    if not fits or not all(1 <= k < CHUNK for k in eos):
        raise ImageToPromptError(
            f"text states of {CHUNK} slots a chunk with an EOS in each",
            f"{described(text_states)} and EOS at {list(eos)}",
            "Use the text encoder of an SD 1.x model.",
            "text encoder",
        )


def _check_widths(sos: Tensor, embeddings: Tensor) -> None:
    if sos.shape != embeddings.shape[1:]:
        raise ImageToPromptError(
            f"a text encoder of width {embeddings.shape[-1]}",
            f"a SOS state of shape {tuple(sos.shape)}",
            "Use the projection of the same CLIP as the text encoder.",
            "text encoder pairing",
        )
