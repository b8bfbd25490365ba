"""Ways from a picture's joint embedding to an EOS state.

All take unit embeddings v (N, 96) and give e (N, 96) of SD 1.5's EOS length over sqrt(8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from .gap import caption_states
from .joint_space import CUT
from .train_vision import image_embeds
from .world import generator_of, render, sample

NORM = 27.5 / 8**0.5  # the paper's length
RIDGE, UNCUT = 0.09, 1e-4


def pseudo_inverse(weight: Tensor, cut: float = CUT) -> Tensor:
    """W_t^+ (96, 96) from the singular values above `cut`."""
    U, s, Vh = torch.linalg.svd(weight.double())
    kept = s > cut
    return (Vh[kept].T / s[kept] @ U[:, kept].T).float()


def ridge(weight: Tensor, damping: float = RIDGE) -> Tensor:
    """(W_t^T W_t + damping)^-1 W_t^T."""
    W = weight.double()
    return torch.linalg.solve(W.T @ W + damping * torch.eye(W.shape[1]), W.T).float()


@dataclass(frozen=True)
class TextStatistics:
    """Mean EOS state (96,) over the captions of training pairs, mean distance of states from it."""

    mean: Tensor
    spread: float

    @classmethod
    @torch.no_grad()
    def measure(cls, clip: CLIPModel) -> TextStatistics:
        """Over all full captions of the training pairs."""
        states = caption_states(clip, "train")
        mean = states.mean(dim=0)
        return cls(mean, float((states - mean).norm(dim=-1).mean()))


@torch.no_grad()
def mean_picture(clip: CLIPModel, count: int) -> Tensor:
    """Mean unit embedding (96,) of `count` training pictures."""
    pictures = render(sample(count, "train", generator_of(81)))
    return F.normalize(image_embeds(clip, pictures), dim=-1).mean(dim=0)


@torch.no_grad()
def closed_forms(clip: CLIPModel, v: Tensor) -> dict[str, Tensor]:
    """e (N, 96) of unit embeddings v (N, 96) by every form."""
    weight, text = clip.text_projection.weight, TextStatistics.measure(clip)
    inverse, median = pseudo_inverse(weight), float(torch.linalg.svdvals(weight).median())
    maps = {
        "paper, cut 0.3": inverse,
        "cut 0.7 x median": pseudo_inverse(weight, 0.7 * median),
        "cut 0.2": pseudo_inverse(weight, 0.2),
        "uncut": pseudo_inverse(weight, UNCUT),
        "ridge 0.09": ridge(weight),
        "transpose": weight.T,
    }
    forms = {name: NORM * F.normalize(v @ matrix.T, dim=-1) for name, matrix in maps.items()}
    first = torch.linalg.svd(clip.visual_projection.weight)[0][:, 0]
    centred = {
        "gap corrected, 16 pictures": v - mean_picture(clip, 16),
        "gap corrected, 200 pictures": v - mean_picture(clip, 200),
        "gap corrected, no picture": v - (v @ first)[:, None] * first,
    }
    for name, difference in centred.items():
        forms[name] = text.mean + text.spread * F.normalize(difference @ inverse.T, dim=-1)
    forms["mean EOS state alone"] = text.mean.expand(len(v), -1)
    return forms
