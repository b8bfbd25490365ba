"""What pictures became for SD 2.x or SDXL, apart from projection and vision encoder (ours).

    slot of the text's first EOS <- slot 1 of the saved prompt's chunk
    each slot after it           <- the same slot of the saved prompt's chunk

A prompt that was made without a text has its EOS reading in slot 1, where the empty prompt ends, so
that a text added afterwards gives what it would have given before. It joins beside the offset of
its kind of slot, which the prompt keeps for this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..closed_form.clip_identity import ClipIdentity
from ..errors import ImageToPromptError
from ..prompt.conditioning import CHUNK, PAPER_TEXT_WEIGHT, has_words
from ..prompt.slots import distinct_vectors
from .family import Family
from .readings import Readings
from .slots import EncodedPrompt, Origin, mixed_with_text, placed


@dataclass(frozen=True, eq=False)
class FamilyPrompt:
    """Prompts of a family as few vectors and which of them each slot holds. Immutable.

    vectors: (K, W) float32, text states of all parts joined along their width. slots: (B, 77 n)
    int64, rows of `vectors`; the first slot of each chunk is the text encoders' own. pooled: (B, P)
    float32. origins: by the reading's name. layer: of the encoders, see `Readings`. encoder: the
    CLIP of the projection that made it.
    """

    family: Family
    layer: int
    vectors: Tensor
    slots: Tensor
    pooled: Tensor
    origins: Mapping[str, Origin]
    encoder: ClipIdentity

    @classmethod
    def of(
        cls, conditioning: Tensor, pooled: Tensor, readings: Readings, encoder: ClipIdentity
    ) -> FamilyPrompt:
        """From conditioning (B, 77 n, W) and pooled (B, P), kept bit for bit after each SOS.

        Raises ImageToPromptError for other shapes and for numbers that are not finite in float32.
        """
        rows, vector = (t.detach().cpu().float() for t in (conditioning, pooled))
        family, shape = readings.family, (len(rows), readings.pooled_width)
        whole = rows.ndim == 3 and len(rows) and rows.shape[1] and rows.shape[1] % CHUNK == 0
        fit = whole and rows.shape[2] == family.width and vector.shape == shape
        if not fit or not (torch.isfinite(rows).all() and torch.isfinite(vector).all()):
            raise ImageToPromptError(
                f"a finite conditioning (B, {CHUNK} n, {family.width}) with pooled vectors "
                f"(B, {readings.pooled_width}) of {family.name}",
                f"{tuple(conditioning.shape)} and {tuple(pooled.shape)}, or NaN in them",
                "Save a prompt that was made with the same projection.",
                "prompt to save",
            )
        vectors, slots = distinct_vectors(rows)
        origins = {
            name: Origin(*(t.detach().cpu().clone() for t in (each.offset, each.scale)))
            for name, each in readings.readings.items()
        }
        return cls(family, readings.layer, vectors, slots, vector.clone(), origins, encoder)


def saved_prompt(
    prompt: FamilyPrompt,
    text: EncodedPrompt,
    text_weight: float = PAPER_TEXT_WEIGHT,
    blend: str = "add",
) -> tuple[Tensor, Tensor]:
    """Conditioning (B, 77 n, W) and pooled vectors (B, P) of a saved prompt with a text.

    text, text_weight, blend: see `picture_prompt`. A prompt of more chunks than the text ends with
    its own last ones.
    """
    family, keep = prompt.family, blend != "add"
    weight = text_weight if has_words(text.eos[family.keys[0]]) else 0.0
    begun = 0
    parts = []
    for part in family.parts:
        states, eos = text.states[part.key], text.eos[part.key]
        rows = prompt.vectors[:, begun : begun + part.width].to(states)
        begun += part.width
        own = rows[_aligned(prompt.slots, eos).to(rows.device)]  # (B, 77 n, D)
        end, after = (
            mixed_with_text(prompt.origins[f"{part.key}.{place}"], own, states, weight, keep)
            for place in ("eos", "pad")
        )
        rest = rows[prompt.slots[:, CHUNK * len(eos) :].to(rows.device)]
        rest[:, ::CHUNK] = states[0, 0]
        parts.append(torch.cat([placed(states, eos, end, after), rest], dim=1))
    pooled, vector = prompt.pooled.to(text.pooled)[:, None], text.pooled[:, None]
    joined = mixed_with_text(prompt.origins["pooled"], pooled, vector, weight, keep)
    return torch.cat(parts, dim=-1), joined[:, 0]


def _aligned(slots: Tensor, eos: Sequence[int]) -> Tensor:
    """Rows of vectors (B, 77 n) for a text whose chunks end at `eos`; those before are unused."""
    chunks = slots.split(CHUNK, dim=1)
    found = []
    for number, end in enumerate(eos):
        own = chunks[min(number, len(chunks) - 1)].clone()
        own[:, end] = own[:, 1]
        found.append(own)
    return torch.cat(found, dim=1)
