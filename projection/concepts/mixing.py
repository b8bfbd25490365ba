"""Image embeddings of which a concept is taken from another image, alone, or left out.

    swap      x + p (y G - x G)
    only      x + p (m + (x - m) G - x)
    without   x - p (x - m) (2 G - G^2)

x, y: unit image embeddings (B, J), joint CLIP space; G: the concept's filter, see `concept`;
p: the amount, 0..1; m = (x . c) c + centre: what x shares with all pictures, so that what is left
out is replaced by the mean picture's and not by nothing (ours). swap is IP-Composer's composition.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError, quoted
from ..tensors import described
from .concept import Concept


def swap(image_embeds: Tensor, others: Tensor, concept: Concept, amount: float = 1.0) -> Tensor:
    """Image embeddings (B, J) whose concept is that of other images.

    image_embeds, others: (B, J), joint CLIP space, of any length; others may be (1, J). amount: p,
    0..1; 0 gives `image_embeds` back. The result is not normalised. Raises ImageToPromptError for
    unfit shapes or amounts.
    """
    if len(others) not in (1, len(image_embeds)):
        raise ImageToPromptError(
            f"1 or {len(image_embeds)} other images", f"{len(others)}", "Give one for each image."
        )
    x, y = _unit(image_embeds), _unit(others)
    return _moved(image_embeds, x, concept.part(y) - concept.part(x), amount)


def only(
    image_embeds: Tensor,
    concept: Concept,
    amount: float = 1.0,
    direction: Tensor | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Image embeddings (B, J) of which the concept alone is left beside the mean picture.

    image_embeds: (B, J), joint CLIP space, of any length. direction: c (J,) of the mean picture, of
    length 1, of either sign (`Centred.direction`, `visual_direction`); centre: (J,), what the mean
    picture has beside it (`Readings.centre`); None: neither. amount, the result and errors are
    those of `swap`.
    """
    x = _unit(image_embeds)
    deviation = x - _mean_part(x, direction, centre)
    return _moved(image_embeds, x, concept.part(deviation) - deviation, amount)


def without(
    image_embeds: Tensor,
    concept: Concept,
    amount: float = 1.0,
    direction: Tensor | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Image embeddings (B, J) in which the concept is that of the mean picture; as `only`."""
    x = _unit(image_embeds)
    deviation = x - _mean_part(x, direction, centre)
    return _moved(image_embeds, x, -concept.whole_part(deviation), amount)


def _moved(image_embeds: Tensor, x: Tensor, change: Tensor, amount: float) -> Tensor:
    if not 0 <= amount <= 1:  # false for NaN too
        raise ImageToPromptError("an amount from 0 to 1", quoted(amount), "Correct amount.")
    return image_embeds if amount == 0 else x + amount * change


def _unit(image_embeds: Tensor) -> Tensor:
    if image_embeds.ndim != 2 or not image_embeds.is_floating_point():
        raise ImageToPromptError(
            "image embeddings (B, J)",
            described(image_embeds),
            "Use image embeddings as the CLIP vision encoder gives them.",
            "vision encoder",
        )
    return normalize(image_embeds.float(), dim=-1)


def _mean_part(x: Tensor, direction: Tensor | None, centre: Tensor | None) -> Tensor:
    along = torch.zeros_like(x)
    if direction is not None:
        c = direction.to(x)
        along = (x @ c)[:, None] * c
    return along if centre is None else along + centre.to(x)
