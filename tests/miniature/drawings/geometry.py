"""The geometry of the miniature's CLIP beside that of ViT-L/14.

    python tests miniature.drawings.geometry

and, without the U-Net, what the prompt embeddings of every closed form have in common with EOS
states.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from . import models
from .gap import caption_states, pair_states, start_state
from .joint_space import CUT
from .rows import embeddings
from .sampling import Miniature
from .train_vision import image_embeds
from .world import generator_of, render, sample

# What 200 photos and 177 EOS states of ViT-L/14 give; lengths are divided by sqrt(8).
REAL = {
    "EOS length": 28.3 / 8**0.5,
    "mean EOS state over length": 0.68,
    "cosine among EOS states": 0.46,
    "start state length": 43.8 / 8**0.5,
    "cut energy of mean EOS state": 0.19,
    "cosine among texts, joint": 0.68,
    "texts on u_1": -0.73,
    "kept directions, of all": 0.79,
    "cosine picture to own text": 0.205,
    "cosine picture to all texts": 0.129,
    "cut energy of pictures": 0.35,
    "cut energy of mean picture": 0.61,
    "cut energy of differences": 0.034,
    "cosine among pictures": 0.5,
    "pictures on u_1": -0.15,
    "W_v's u_1 to mean picture": 0.85,
}


def energy_share(vectors: Tensor, basis: Tensor) -> float:
    """Energy of vectors (N, D) within orthonormal columns (D, k), of all their energy."""
    return float((vectors @ basis).square().sum() / vectors.square().sum())


def text_geometry(clip: CLIPModel) -> dict[str, float]:
    """Statistics of the EOS states of all captions and of their projections."""
    states = caption_states(clip)
    mean, length = states.mean(dim=0), states.norm(dim=-1).mean()
    U, s, Vh = torch.linalg.svd(clip.text_projection.weight)
    unit, joint = F.normalize(states, dim=-1), F.normalize(clip.text_projection(states), dim=-1)
    top = U[:, 0] * (joint.mean(dim=0) @ U[:, 0]).sign() * -1  # the sign that ViT-L/14 has
    return {
        "EOS length": float(length),
        "mean EOS state over length": float(mean.norm() / length),
        "cosine among EOS states": float(unit.mean(dim=0).square().sum()),
        "start state length": float(start_state(clip).norm()),
        "cut energy of mean EOS state": energy_share(mean[None], Vh[s < CUT].T),
        "cosine among texts, joint": float(joint.mean(dim=0).square().sum()),
        "texts on u_1": float((joint @ top).mean()),
        "kept directions, of all": float((s > CUT).float().mean()),
    }


def picture_geometry(clip: CLIPModel, count: int) -> dict[str, float]:
    """Statistics of the unit embeddings of held-out pictures against all pairs' captions."""
    scenes = sample(count, "test", generator_of(79))
    v = F.normalize(image_embeds(clip, render(scenes)), dim=-1)
    texts = F.normalize(clip.text_projection(pair_states(clip)), dim=-1)
    U, s, _ = torch.linalg.svd(clip.text_projection.weight)
    sign = -(texts.mean(dim=0) @ U[:, 0]).sign()
    mean, cut = v.mean(dim=0), U[:, s < CUT]
    first = torch.linalg.svd(clip.visual_projection.weight)[0][:, 0]
    own = texts[8 * scenes.thing + scenes.ground]
    return {
        "cosine picture to own text": float((v * own).sum(dim=-1).mean()),
        "cosine picture to all texts": float((v @ texts.T).mean()),
        "cut energy of pictures": energy_share(v, cut),
        "cut energy of mean picture": energy_share(mean[None], cut),
        "cut energy of differences": energy_share(v - mean, cut),
        "cosine among pictures": float(mean.square().sum()),
        "pictures on u_1": float((v @ U[:, 0]).mean() * sign),
        "W_v's u_1 to mean picture": float(F.cosine_similarity(first, mean, dim=0).abs()),
    }


@torch.no_grad()
def print_cosines(miniature: Miniature, count: int) -> None:
    """Cosines of prompt embeddings of held-out pictures to EOS states of all pairs."""
    scenes = sample(count, "test", generator_of(79))
    states = F.normalize(pair_states(miniature.clip), dim=-1)
    centred = F.normalize(states - states.mean(dim=0), dim=-1)
    row = 8 * scenes.thing + scenes.ground
    print(f"\n{'form':30} {'own':>6} {'all':>6} {'among':>6} {'top-1':>6} {'centred':>7}")
    for name, e in embeddings(miniature, miniature.image_embeds(render(scenes))).items():
        unit = F.normalize(e, dim=-1)
        shifted = F.normalize(unit - unit.mean(dim=0), dim=-1)
        nearest = ((unit @ states.T).argmax(dim=-1), (shifted @ centred.T).argmax(dim=-1))
        values = (
            (unit * states[row]).sum(dim=-1).mean(),
            (unit @ states.T).mean(),
            unit.mean(dim=0).square().sum(),
            *((found == row).float().mean() for found in nearest),
        )
        print(f"{name:30} " + " ".join(f"{float(value):6.3f}" for value in values))


@torch.no_grad()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    clip = models.load("clip", options.weights)
    facts = text_geometry(clip) | picture_geometry(clip, options.count)
    print(f"{'':30}  here   ViT-L/14")
    for name, value in facts.items():
        print(f"{name:30} {value:6.3f}  {REAL[name]:6.3f}")
    print_cosines(Miniature.load(options.weights), options.count)


if __name__ == "__main__":
    main()
