"""Prompts whose slots hold different vectors: several pictures that share the slots (ours).

    [SOS, e_1, e_2, e_1, e_3, ...]        picture i has w_i / sum(w) of the slots

A U-Net's cross-attention has no order of slots, so pictures need not be averaged before it: each
keeps vectors of its own. Slots are given out from the last one on by the divisor rule of Webster
and Sainte-Lague: whatever a text leaves of them is shared in the same proportion.

A weight below 0 subtracts, about the common part o of a centred projection (zero without one):

    e_i - o - t (q - o),  t = sum |w_-| / sum w_+,  at most as long as e_i - o

where q is the spherical mean of the pictures with weights below 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..closed_form.clip_identity import ClipIdentity
from ..errors import ImageToPromptError, quoted
from .conditioning import CHUNK, CommonPart, condition
from .spherical_mean import spherical_mean

_CANCELLED = 1e-4  # of an embedding's length: what is left is rounding


@dataclass(frozen=True, eq=False)
class _Common:
    gap: float
    common: Tensor


@dataclass(frozen=True, eq=False)
class SlotPrompt:
    """Prompts as few vectors and which of them each slot holds. Immutable.

    vectors: (K, D) float32, last-layer text states. slots: (B, 77 n) int64, rows of `vectors`; the
    first slot of each chunk is the text encoder's own SOS state, whatever is named there. encoder:
    whose states they are. common, gap: of the centred projection that made them, see
    `closed_form.centred`; None and 0 without one.
    """

    vectors: Tensor
    slots: Tensor
    encoder: ClipIdentity
    common: Tensor | None = None
    gap: float = 0.0

    @property
    def centred(self) -> CommonPart | None:
        """What a text is added beside, as `conditioning.condition` takes it."""
        return None if self.common is None else _Common(self.gap, self.common)

    @classmethod
    def of(
        cls, conditioning: Tensor, encoder: ClipIdentity, centred: CommonPart | None
    ) -> SlotPrompt:
        """From conditioning (B, 77 n, D), whose slots after SOS are kept bit for bit.

        centred: of the projection that made it. Raises ImageToPromptError for other shapes and
        for numbers that are not finite in float32.
        """
        rows = conditioning.detach().cpu().float()
        wanted = rows.ndim == 3 and len(rows) and rows.shape[1] and rows.shape[1] % CHUNK == 0
        if not wanted or rows.shape[2] != encoder.text_width or not torch.isfinite(rows).all():
            raise ImageToPromptError(
                f"a finite conditioning (B, {CHUNK} n, {encoder.text_width}) of {encoder.name}",
                f"{tuple(conditioning.shape)}",
                "Save a prompt that was made with the same CLIP.",
                "prompt to save",
            )
        vectors, slots = distinct_vectors(rows)
        gap = 0.0 if centred is None else centred.gap
        common = None if centred is None or gap == 0 else centred.common.detach().cpu().float()
        return cls(vectors, slots, encoder, common, gap)


def distinct_vectors(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different vectors (K, D) of a conditioning (B, 77 n, D), and each slot's row (B, 77 n).

    SOS, the text encoder's own, is left out: the first slot of each chunk names the second's row.
    """
    rows = rows.clone()
    rows[:, ::CHUNK] = rows[:, 1::CHUNK]
    vectors, slots = torch.unique(rows.reshape(-1, rows.shape[2]), dim=0, return_inverse=True)
    return vectors, slots.reshape(rows.shape[:2])


def shared_slots(weights: Sequence[float], length: int = CHUNK) -> Tensor:
    """Which of K pictures each slot holds: (1, length) int64, by weights >= 0, not all zero.

    Every stretch of slots that ends with the last one is shared in proportion, as far as whole
    slots can. Slot 0 is SOS and names picture 0. The order of the pictures breaks ties.
    """
    counts = [0] * len(weights)
    slots = [0] * length
    for place in range(length - 1, 0, -1):
        quotients = [w / (2 * n + 1) for w, n in zip(weights, counts, strict=True)]
        chosen = quotients.index(max(quotients))
        counts[chosen] += 1
        slots[place] = chosen
    return torch.tensor([slots])


def weighted(
    embeddings: Tensor, weights: Sequence[float] | None, common: Tensor | None
) -> tuple[Tensor, list[float]]:
    """The pictures that share slots (P, D), less those with weights below 0, and their weights.

    embeddings: (B, D); weights: B finite numbers, at least one above 0; None is all equal. common:
    `Centred.common` (D,) or None. Raises ImageToPromptError for unfit weights, or where nothing is
    left of a picture and there is no common part.
    """
    used, positive, below, negative = signed_rows(weights, len(embeddings))
    if not below:
        return embeddings[used], positive
    mean = spherical_mean(embeddings[below], negative, common)
    share = math.fsum(negative) / math.fsum(positive)
    return subtracted(embeddings[used], mean, share, common), positive


def weighted_mean(
    embeddings: Tensor, weights: Sequence[float] | None, common: Tensor | None
) -> Tensor:
    """As `spherical_mean` (1, D), where weights below 0 subtract; as `weighted`."""
    if weights is None or all(weight >= 0 for weight in weights):
        return spherical_mean(embeddings, weights, common)
    used, positive, below, negative = signed_rows(weights, len(embeddings))
    mean = spherical_mean(embeddings[used], positive, common)
    taken = spherical_mean(embeddings[below], negative, common)
    return subtracted(mean, taken, math.fsum(negative) / math.fsum(positive), common)


def signed_rows(
    weights: Sequence[float] | None, count: int
) -> tuple[list[int], list[float], list[int], list[float]]:
    """Rows with weights above 0 and those weights, then rows below 0 and theirs without the sign.

    weights: `count` finite numbers, at least one above 0; None is all equal. Raises
    ImageToPromptError for others.
    """
    given = [1.0] * count if weights is None else _checked(weights, count)
    return *_signed(given, 1), *_signed(given, -1)


def _signed(weights: Sequence[float], sign: int) -> tuple[list[int], list[float]]:
    """The rows whose weights have this sign, and those weights without it."""
    rows = [row for row, weight in enumerate(weights) if sign * weight > 0]
    return rows, [sign * weights[row] for row in rows]


def subtracted(embeddings: Tensor, mean: Tensor, share: float, common: Tensor | None) -> Tensor:
    """e - o - t (q - o) about o (P, D), at most as long as e - o.

    embeddings: e (P, D). mean: q (1, D). share: t > 0. common: o (D,) or None for zero.
    """
    centre = torch.zeros_like(mean[0]) if common is None else common.to(mean)
    deviation = embeddings - centre
    left = deviation - share * (mean - centre)
    length, usual = (x.norm(dim=-1, keepdim=True) for x in (left, deviation))
    if common is None and (length < _CANCELLED * usual).any():
        raise ImageToPromptError(
            "pictures that differ where one is subtracted from the other",
            "weights that cancel",
            "Correct the weights, or use a projection with a gap above 0.",
            "image weights",
        )
    return centre + left * (usual / length.clamp_min(1e-12)).clamp(max=1.0)


def slot_conditioning(
    prompt: SlotPrompt,
    text_states: Tensor,
    eos: Sequence[int],
    text_weight: float,
    blend: str = "add",
) -> Tensor:
    """Conditioning (B, 77 n, D) of a prompt with a text, which joins it in each slot.

    text_states: (1, 77 n, D); eos: see `conditioning.condition`. A prompt of fewer chunks than
    the text repeats its last one. Raises ImageToPromptError for a prompt of more chunks.
    """
    chunks, longest = len(eos), prompt.slots.shape[1] // CHUNK
    if longest > chunks:
        raise ImageToPromptError(
            f"a text of at least {longest} chunks of {CHUNK} tokens", f"{chunks}", "Pad the text."
        )
    vectors = prompt.vectors.to(text_states)
    each = condition(text_states, eos, vectors, text_weight, blend, prompt.centred)
    last = prompt.slots[:, -CHUNK:]
    slots = torch.cat([prompt.slots, *[last] * (chunks - longest)], dim=1).to(each.device)
    return each[slots, torch.arange(slots.shape[1], device=each.device)]


def _checked(weights: Sequence[float], count: int) -> list[float]:
    fit = len(weights) == count and all(abs(weight) <= 1e6 for weight in weights)  # no NaN
    if not fit or not any(weight > 0 for weight in weights):
        raise ImageToPromptError(
            f"{count} finite weights, one per image, at least one of them above 0",
            f"[{', '.join(map(quoted, list(weights)[:9]))}]",
            "Correct the weights, or give None for equal ones.",
            "image weights",
        )
    return [float(weight) for weight in weights]
