"""Real embeddings and EOS states of CLIP ViT-L/14, from files that are not in the repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import normalize

from image_to_prompt.tests.fixtures.builders import REAL_PROJECTIONS

GEOMETRY = REAL_PROJECTIONS.with_name("clip-vit-l-14-geometry.safetensors")
POOLS = ("scaled", "plain", "ade", "nyu")


@dataclass(frozen=True, eq=False)
class World:
    """A geometry file and both projections, float64.

    photos, means: (n, J), joint CLIP space, of length 1: an image of each of n concepts, and the
    mean over other images of the same concept. classes: (K, D), EOS states. others: (m, D), EOS
    states of furniture and rooms. own: (n, K), whether a class names what a photo shows. laion:
    (p, J), mean embeddings of many pictures. text: W_t (J, D); visual: W_v (J, V).
    """

    photos: Tensor
    means: Tensor
    classes: Tensor
    others: Tensor
    own: Tensor
    laion: Tensor
    text: Tensor
    visual: Tensor

    @property
    def judged(self) -> Tensor:
        """Indices of the photos that have a class."""
        return self.own.any(dim=1).nonzero()[:, 0]

    @property
    def groups(self) -> Tensor:
        """Number of each judged photo's set of classes."""
        return torch.unique(self.own[self.judged], dim=0, return_inverse=True)[1]


def load(geometry: Path = GEOMETRY, projections: Path = REAL_PROJECTIONS) -> World:
    """Reads both files. Raises SystemExit with a sentence where one is absent."""
    for path in (geometry, projections):
        if not path.is_file():
            raise SystemExit(
                f"Expected real CLIP data at {path}. Got no file there. Place it there, or give "
                "another file of the same form: make geometry DATA=file"
            )
    data, facts = _read(geometry)
    weights, _ = _read(projections)
    names, of = json.loads(facts["ade_classes"]), json.loads(facts["ade_classes_of_concept"])
    return World(
        photos=normalize(data["photo_embeds"], dim=-1),
        means=normalize(data["concept_mean_embeds"], dim=-1),
        classes=data["ade_eos_states"],
        others=data["nyu_eos_states"],
        own=_own(json.loads(facts["photo_concepts"]), of, names),
        laion=data["laion_centroids"],
        text=weights["text_projection.weight"],
        visual=weights["visual_projection.weight"],
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        keys = file.keys()
        return {key: file.get_tensor(key).double() for key in keys}, dict(file.metadata() or {})


def _own(concepts: Sequence[str], of: dict[str, Sequence[str]], names: Sequence[str]) -> Tensor:
    own = torch.zeros(len(concepts), len(names), dtype=torch.bool)
    for row, concept in enumerate(concepts):
        for name in of.get(concept, ()):
            own[row, names.index(name)] = True
    return own


def mean_and_spread(states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean state (D,) of states (n, D), and their mean distance from it ()."""
    mean = states.mean(dim=0)
    return mean, (states - mean).norm(dim=-1).mean()


def offsets(world: World, pool: str = "scaled") -> tuple[Tensor, Tensor]:
    """Offset (n, D) and spread (n,) for each photo, from all states but those of its own classes.

    plain: mean and mean distance over classes and others. scaled: direction of that mean, with
    the length and the spread of the classes, since the others are means over templates and
    shorter. ade: classes alone. nyu: others alone, states of one kind.
    """
    length, spread = mean_and_spread(world.classes)
    found = []
    for own in world.own:
        rest = world.classes[~own]
        parts = {"ade": [rest], "nyu": [world.others]}.get(pool, [rest, world.others])
        mean, distance = mean_and_spread(torch.cat(parts))
        scaled = (normalize(mean, dim=0) * length.norm(), spread)
        found.append(scaled if pool == "scaled" else (mean, distance))
    means, distances = zip(*found, strict=True)
    return torch.stack(means), torch.stack(distances)
