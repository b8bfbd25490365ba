"""Fixtures of the tests of Load Projection with a gap.

The CLIP is small and random: wiring only. What the gap does to pictures is measured on the
miniature and on real embeddings, see tests/miniature and tests/geometry.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from image_to_prompt.projection import (
    Projection,
)
from image_to_prompt.tests.host import small_models

FILE = "gap-clip.safetensors"
WORDS = ("cat", "dog", "tree", "river", "red", "castle", "old", "small", "night", "snow")
CAPTIONS = [f"a {WORDS[i % 10]} {WORDS[i // 4]} {'and a lamp ' * (i % 4)}" for i in range(36)]


@pytest.fixture(scope="module")
def models(host, tmp_path_factory):
    """The CLIP's halves in the host's classes, and its projections as a file."""
    reference = small_models.reference_clip(seed=5)
    names = ("text_projection.weight", "visual_projection.weight")
    weights = {name: reference.state_dict()[name].clone().contiguous() for name in names}
    save_file(weights, host.folders / "models" / "text_encoders" / FILE)
    with torch.inference_mode():
        vision = small_models.host_clip_vision(reference, tmp_path_factory.mktemp("vision"))
        clip = small_models.host_clip(reference)
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(9, 30, 40, 3, generator=generator)
    return SimpleNamespace(clip=clip, vision=vision, pictures=pictures, weights=weights)


@pytest.fixture(scope="module")
def load(host, models):
    def loaded(**inputs) -> Projection:
        given = {"file": FILE, "method": "pseudo-inverse", "cutoff": 0.0} | inputs
        with torch.inference_mode():
            return host.classes["LoadProjection"].execute(**given).args[0]

    return loaded


@pytest.fixture(scope="module")
def embed(host, models):
    def embedded(projection, image=None, **inputs):
        given = {
            "projection": projection,
            "clip": models.clip,
            "clip_vision": models.vision,
            "image": models.pictures[:1] if image is None else image,
            "text": "",
            "text_weight": 0.6,
            "strength": 1.0,
            "images": "one prompt per image",
            "crop": "center",
        }
        with torch.inference_mode():
            [value] = host.classes["ImageToPromptEmbed"].execute(**given | inputs).args
        while not isinstance(value, torch.Tensor):
            value = value[0]
        return value

    return embedded


@pytest.fixture(scope="module")
def closed(load):
    return load()


@pytest.fixture(scope="module")
def opened(load, models):
    """At gap 1, from these captions alone."""
    return load(clip=models.clip, captions="\n".join(CAPTIONS), gap=1.0)


@pytest.fixture
def no_encoding(monkeypatch):
    from image_to_prompt.nodes.gap import form as gap

    def encode(*_):
        raise AssertionError("something was encoded")

    monkeypatch.setattr(gap, "eos_states", encode)
    monkeypatch.setattr(gap, "image_embeddings", encode)
