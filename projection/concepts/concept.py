"""A concept: the directions in which the CLIP embeddings of a list of words differ.

    X      unit text embeddings of the words less their mean (N, J), joint CLIP space
    C      X'X / N = V diag(l) V'
    g_k    l_k / (l_k + t L),    L = sum l^2 / sum l,    t = 0.1       filter of direction v_k
    G      V diag(g) V'                                                x G: the concept in x

IP-Composer (Dorfman et al. 2025) projects on the leading directions of such a list; a hard choice
of their number either cuts a word off or takes what the words share with everything else. Here
each direction counts by the filter of ridge regression instead (ours). The two were not compared on
drawn pictures yet; tests/miniature/RESULTS.md has what was measured of the filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ImageToPromptError
from ..tensors import described, is_plain

MIN_WORDS = 3
SHRINKAGE = 0.1  # t; .1, .2 and .3 were tried


@dataclass(frozen=True, eq=False)
class Concept:
    """The directions in which a list of words differs, with their filter. Immutable.

    directions: (K, J) float32, orthonormal rows, joint CLIP space. shares: (K,) float32, g_k from
    0 to 1, descending.
    """

    directions: Tensor
    shares: Tensor

    @classmethod
    def of(cls, text_embeds: Tensor) -> Concept:
        """The concept of words.

        text_embeds: (N, J), joint CLIP space, of any length, of N >= 3 words. Raises
        ImageToPromptError for fewer, for embeddings with NaN or zero, or for words all alike.
        """
        _check_words(text_embeds)
        x = normalize(text_embeds.detach().cpu().double(), dim=-1)
        x = x - x.mean(dim=0)
        _, values, directions = torch.linalg.svd(x, full_matrices=False)
        energy = values.square() / len(x)
        if not float(energy.sum()) > 1e-8:
            raise _unfit("words that differ", "words that are all alike")
        ridge = SHRINKAGE * energy.square().sum() / energy.sum()
        kept = energy > 1e-6 * energy[0]  # the mean takes one direction away
        shares = energy / (energy + ridge)
        return cls(directions[kept].float(), shares[kept].float())

    @property
    def rank(self) -> int:
        """How many directions count by half or more."""
        return int((self.shares >= 0.5).sum())

    def part(self, image_embeds: Tensor) -> Tensor:
        """x G (B, J): the concept's part of embeddings x (B, J), joint CLIP space.

        Raises ImageToPromptError for another width.
        """
        return self._filtered(image_embeds, self.shares)

    def whole_part(self, image_embeds: Tensor) -> Tensor:
        """x (2 G - G^2) (B, J): `part`, and `part` of the rest; shapes and errors are the same.

        Where the concept is to be left out, G alone leaves a tenth of its strongest direction.
        """
        return self._filtered(image_embeds, 1 - (1 - self.shares).square())

    def _filtered(self, x: Tensor, shares: Tensor) -> Tensor:
        directions, shares = self.directions.to(x), shares.to(x)
        if x.ndim != 2 or x.shape[1] != directions.shape[1]:
            raise ImageToPromptError(
                f"image embeddings (B, {directions.shape[1]}) of the concept's CLIP",
                described(x),
                "Encode images and words with the same CLIP.",
                "vision encoder",
            )
        return (x @ directions.T * shares) @ directions  # (B, J) -> (B, K) -> (B, J)


def _check_words(text_embeds: Tensor) -> None:
    if not is_plain(text_embeds) or text_embeds.ndim != 2 or len(text_embeds) < MIN_WORDS:
        expected = f"text embeddings (N, J) of at least {MIN_WORDS} words"
        raise _unfit(expected, described(text_embeds))
    lengths = text_embeds.double().norm(dim=-1)
    if not (torch.isfinite(lengths) & (lengths > 0)).all():
        raise _unfit("text embeddings of finite numbers", "NaN, infinite or zero ones")


def _unfit(expected: str, got: str) -> ImageToPromptError:
    do = "Give more and different words of one kind."
    return ImageToPromptError(expected, got, do, "concept words")
