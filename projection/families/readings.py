"""The readings of one family, and the centre of pictures that all of them start from (ours).

    n = v/|v|          r = n - (n . c) c          x = r - centre

    c: first left singular direction of W_v, or 0 where W_v is not known
    centre = max(0, 1 - s^2 / (N |m|^2)) m        m, s^2: mean and variance of r over N pictures

Pictures and captions have different means in a real CLIP (the modality gap), so what is subtracted
from a picture has to be the mean of pictures. W_v's first direction has cosine .85 to the mean
picture of ViT-L/14 and stands in for it. Pictures of the user's add what is left of their mean,
shrunk by how uncertain the mean of so few is (the positive part of James and Stein's estimator):
the mean of 4 pictures is mostly their content, and subtracting all of it would remove that
content from every picture. Without c and pictures the centre is the captions' mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError
from ..tensors import described, is_plain
from .family import Family
from .reading import Reading, refuse


@dataclass(frozen=True, eq=False)
class Readings:
    """Every reading that a family's conditioning needs, by its name in the family. Immutable.

    centre: (J,), joint CLIP space. direction: c (J,), of length 1, or zeros for none. layer: of
    the encoders whose states were read, -1 is the last. captions, pictures: how many were used.
    Raises ImageToPromptError if the parts do not fit together.
    """

    family: Family
    readings: Mapping[str, Reading]
    centre: Tensor
    direction: Tensor
    layer: int
    captions: int
    pictures: int = 0

    def __post_init__(self) -> None:
        if tuple(self.readings) != self.family.reading_names:
            refuse(f"readings {self.family.reading_names}", f"{tuple(self.readings)}")
        for part in self.family.parts:
            found = [self.readings[f"{part.key}.{place}"].width for place in ("eos", "pad")]
            if found != [part.width] * 2:
                refuse(f"readings of width {part.width} for {part.key}", f"{found}")
        for vector in (self.centre, self.direction):
            fits = vector.dtype == torch.float32 and bool(torch.isfinite(vector).all())
            if not fits or any(r.matrix.shape[1:] != vector.shape for r in self.readings.values()):
                refuse("a centre as wide as the joint space", f"{tuple(vector.shape)}")
        length = float(self.direction.double().norm())
        counts = (self.layer, self.captions, self.pictures)
        whole = all(type(n) is int for n in counts) and self.layer < 0 <= min(counts[1:])
        if not whole or not (length == 0 or abs(length - 1) < 1e-3):
            refuse("a direction of length 1 or 0, and counts", f"{length:.4g}, {counts}")

    @property
    def joint_width(self) -> int:
        """J, the width of the image embeddings."""
        return self.centre.shape[0]

    @property
    def pooled_width(self) -> int:
        """P, the width of the pooled vector."""
        return self.readings["pooled"].width

    def centred(self, image_embeds: Tensor) -> Tensor:
        """x (B, J) float32 from image embeddings (B, J), joint CLIP space, of any length."""
        n = _unit(image_embeds, self.joint_width)
        c, centre = self.direction.to(n), self.centre.to(n)
        return n - (n @ c)[:, None] * c - centre

    def apply(self, image_embeds: Tensor) -> dict[str, Tensor]:
        """Text states (B, D) float32 by the reading's name, from image embeddings (B, J).

        Raises ImageToPromptError for another width, or an embedding without a direction.
        """
        x = self.centred(image_embeds)
        return {name: reading.apply(x) for name, reading in self.readings.items()}

    def detached_copy(self) -> Readings:
        """The same readings with tensors of their own, none of them made in inference mode."""
        own = {name: reading.detached_copy() for name, reading in self.readings.items()}
        centre, direction = (t.detach().clone() for t in (self.centre, self.direction))
        return replace(self, readings=own, centre=centre, direction=direction)

    def with_direction(self, direction: Tensor) -> Readings:
        """The same readings with c along a direction (J,) of any length, and centre 0."""
        c = normalize(direction.detach().cpu().double(), dim=0).float()
        return replace(self, direction=c, centre=torch.zeros_like(c), pictures=0)

    def with_pictures(self, image_embeds: Tensor) -> Readings:
        """The same readings with the centre of these N >= 2 pictures (N, J), of any length.

        Raises ImageToPromptError as `apply`, and for fewer.
        """
        n = _unit(image_embeds.detach().cpu(), self.joint_width).double()
        if len(n) < 2:
            raise ImageToPromptError(
                "at least 2 pictures", f"{len(n)}", "Give more pictures, or none.", "mean picture"
            )
        c = self.direction.double()
        r = n - (n @ c)[:, None] * c
        mean, variance = r.mean(dim=0), r.var(dim=0).sum()
        kept = max(0.0, 1 - float(variance / (len(n) * mean.square().sum())))
        return replace(self, centre=(kept * mean).float(), pictures=len(n))

    def __repr__(self) -> str:
        worst = min(self.readings.values(), key=lambda reading: reading.r_squared)
        pictures = f", mean of {self.pictures} pictures" if self.pictures else ""
        return (
            f"readings for {self.family.name} of {self.captions} captions, R2 >= "
            f"{worst.r_squared:.2f}{pictures}"
        )


def _unit(image_embeds: Tensor, width: int) -> Tensor:
    if not is_plain(image_embeds) or image_embeds.ndim != 2 or image_embeds.shape[1] != width:
        raise ImageToPromptError(
            f"image embeddings (B, {width})",
            described(image_embeds),
            "Use image embeddings of the CLIP that the readings were made for.",
            "vision encoder",
        )
    rows = image_embeds.float()
    length = rows.norm(dim=-1, keepdim=True)
    if not (torch.isfinite(length) & (length > 0)).all():
        raise ImageToPromptError(
            "an image embedding with finite numbers that are not all zero",
            f"lengths {[round(x, 4) for x in length[:8, 0].tolist()]}",
            "Check the images and the CLIP vision encoder for NaN.",
            "image",
        )
    return rows / length
