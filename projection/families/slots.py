"""From a picture's text states to the conditioning of a family's U-Net (ours).

    [SOS, word, ..., word, EOS slot, pad slot, ..., pad slot]        one chunk of 77 tokens

Each slot gets the state that it would have had if a sentence saying the same had just ended: the
EOS reading at the first EOS, the pad reading after it. SOS and words stay untouched. With a text

    e + a (T - offset)      a: text_weight, T: the text's own state of the slot

offset is the mean state of captions: the part that all texts share is not added a second time.
The pooled vector is treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from ..prompt.conditioning import BLENDS, CHUNK, PAPER_TEXT_WEIGHT, has_words, image_slots
from .readings import Readings


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """One text as a family's encoders give it.

    states: (1, 77 n, D) by the part's key, chunk after chunk, as the U-Net reads them. eos: the
    position of the first EOS of each of the n chunks by the part's key. pooled: (1, P).
    """

    states: Mapping[str, Tensor]
    eos: Mapping[str, Sequence[int]]
    pooled: Tensor


def _pad_reading(end: Tensor, pad: Tensor, text: Tensor) -> Tensor:
    return pad


def _own_pads(end: Tensor, pad: Tensor, text: Tensor) -> Tensor:
    return text.expand_as(pad)


def _eos_reading(end: Tensor, pad: Tensor, text: Tensor) -> Tensor:
    return end


# What stands in the slots after the first EOS: the pad reading, the text's own pads, or the EOS
# reading. Each takes the slots (B, 77 n, D) of the two readings, and of the text (1, 77 n, D).
PADS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {"picture": _pad_reading, "text encoder": _own_pads, "EOS": _eos_reading}
)


def picture_prompt(
    readings: Readings,
    image_embeds: Tensor,
    text: EncodedPrompt,
    text_weight: float = PAPER_TEXT_WEIGHT,
    blend: str = "add",
    pads: str = "picture",
) -> tuple[Tensor, Tensor]:
    """Conditioning (B, 77 n, sum of D) and pooled vectors (B, P) of pictures with a text.

    image_embeds: (B, J), joint CLIP space, of any length. text: encoded by the family's encoders;
    where it has no words text_weight has no effect. blend: a name of `BLENDS`; pads: of `PADS`.
    Raises ImageToPromptError for other names, widths and chunks.
    """
    return states_prompt(readings, readings.apply(image_embeds), text, text_weight, blend, pads)


def states_prompt(
    readings: Readings,
    pictures: Mapping[str, Tensor],
    text: EncodedPrompt,
    text_weight: float = PAPER_TEXT_WEIGHT,
    blend: str = "add",
    pads: str = "picture",
) -> tuple[Tensor, Tensor]:
    """As `picture_prompt`, from text states (B, D) by the reading's name."""
    for value, names, what in ((blend, BLENDS, "blend"), (pads, PADS, "rule for pads")):
        if value not in names:
            expected = f"a {what} among {', '.join(map(repr, names))}"
            raise ImageToPromptError(expected, repr(value), "Choose one of them.")
    first = readings.family.keys[0]
    weight = text_weight if has_words(text.eos[first]) else 0.0
    keep = blend != "add"

    def mixed(name: str, states: Tensor) -> Tensor:
        picture = pictures[name].to(states)[:, None]
        return mixed_with_text(readings.readings[name], picture, states, weight, keep)

    parts = []
    for part in readings.family.parts:
        states, eos = text.states[part.key], text.eos[part.key]
        _check_width(states, part.width)
        end, pad = mixed(f"{part.key}.eos", states), mixed(f"{part.key}.pad", states)
        after = PADS[pads](end, pad, states)
        parts.append(placed(states, eos, end, after))
    pooled = mixed("pooled", text.pooled[:, None])[:, 0]
    return torch.cat(parts, dim=-1), pooled


def pooled_strength(pooled: Tensor, null: Tensor, strength: float) -> Tensor:
    """null + s (pooled - null), (B, P), as `apply_strength` does it to the conditioning.

    null: (1, P), of the empty prompt. s = 0 gives null and s = 1 pooled, both bit for bit.
    """
    if strength == 1:
        return pooled
    if strength == 0:
        return null.expand(len(pooled), -1).clone()
    return null + strength * (pooled - null)


class HasOrigin(Protocol):
    """What a text is added beside: the mean state of captions and each channel's deviation."""

    @property
    def offset(self) -> Tensor:
        """(D,)"""
        ...

    @property
    def scale(self) -> Tensor:
        """(D,) > 0"""
        ...


@dataclass(frozen=True, eq=False)
class Origin:
    """Offset and scale (D,) of a reading without its map; see `Reading`."""

    offset: Tensor
    scale: Tensor


def mixed_with_text(
    origin: HasOrigin, picture: Tensor, states: Tensor, weight: float, keep_length: bool
) -> Tensor:
    """e + a (T - offset) (B, L, D) for every state T of a text (1, L, D).

    picture: e (B, 1, D) or (B, L, D). keep_length: the deviation from the offset keeps its length,
    in units of the origin's scale.
    """
    if weight == 0:
        return picture.expand(-1, states.shape[1], -1)
    offset, scale = origin.offset.to(states), origin.scale.to(states)
    deviation = picture - offset
    mixed = deviation + weight * (states - offset)
    if keep_length:
        length = (mixed / scale).norm(dim=-1, keepdim=True).clamp_min(1e-12)
        mixed = mixed * (deviation / scale).norm(dim=-1, keepdim=True) / length
    return offset + mixed


def placed(states: Tensor, eos: Sequence[int], end: Tensor, after: Tensor) -> Tensor:
    """The text's states (1, L, D) with the slots of the first EOS and after it replaced."""
    slots = image_slots(eos, states)  # (L,)
    ends = torch.zeros_like(slots)
    ends[torch.tensor([chunk * CHUNK + place for chunk, place in enumerate(eos)])] = True
    found = torch.where(slots[None, :, None], after, states)
    return torch.where(ends[None, :, None], end, found)


def _check_width(states: Tensor, width: int) -> None:
    if states.ndim != 3 or states.shape[-1] != width:
        raise ImageToPromptError(
            f"text states (1, 77 n, {width})",
            f"{tuple(states.shape)}",
            "Use the readings of the same model family as the text encoder.",
            "text encoder pairing",
        )
