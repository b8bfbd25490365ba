"""Fixtures of the tests of projections for SD 2.x and SDXL; see `family_models`.

Encoders and projections are made once in a session: each is encoded with for many seconds.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from image_to_prompt.projection import Projection
from image_to_prompt.tests.host import family_models, small_models

FILE = "family-clip.safetensors"


@pytest.fixture(scope="module")
def models(host, kept, tmp_path_factory):
    """Text encoders of every family, vision encoders of L, H and G, L's projections as a file."""
    if "models" not in kept:
        kept["models"] = _models(host, tmp_path_factory)
    return kept["models"]


def _models(host, tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("vision")
    reference = small_models.reference_clip(seed=5)
    names = ("text_projection.weight", "visual_projection.weight")
    weights = {name: reference.state_dict()[name].clone().contiguous() for name in names}
    save_file(weights, host.folders / "models" / "text_encoders" / FILE)
    with torch.inference_mode():
        sdxl = family_models.sdxl()
        return SimpleNamespace(
            sdxl=sdxl,
            refiner=family_models.refiner(sdxl),
            sd2=family_models.sd2(),
            vision=small_models.host_clip_vision(reference, folder),
            vision_h=family_models.vision(1024, folder),
            vision_g=family_models.vision(1280, folder),
            pictures=torch.rand(9, 30, 40, 3, generator=torch.Generator().manual_seed(3)),
            weights=weights,
        )


@pytest.fixture(scope="module")
def load(host, models):
    def loaded(**inputs) -> Projection:
        given = {"file": FILE, "method": "pseudo-inverse", "cutoff": 0.0, "corpus_size": 0}
        given |= {"captions": "\n".join(family_models.CAPTIONS)}
        with torch.inference_mode():
            return host.classes["LoadProjection"].execute(**given | inputs).args[0]

    return loaded


@pytest.fixture(scope="module")
def embed(host, models):
    """Image To Prompt Embed's CONDITIONING: states and pooled vectors."""

    def embedded(projection, clip, clip_vision, **inputs):
        given = {
            "projection": projection,
            "clip": clip,
            "clip_vision": clip_vision,
            "image": models.pictures[:1],
            "text": "",
            "text_weight": 0.6,
            "strength": 1.0,
            "images": "one prompt per image",
            "crop": "center",
        }
        with torch.inference_mode():
            [conditioning] = host.classes["ImageToPromptEmbed"].execute(**given | inputs).args
        [[states, extras]] = conditioning
        return states, extras["pooled_output"]

    return embedded


@pytest.fixture(scope="module")
def made(load, models, kept):
    """A projection for SDXL from L's joint space, by these captions."""
    if "sdxl" not in kept:
        kept["sdxl"] = load(clip=models.sdxl)
    return kept["sdxl"]


@pytest.fixture(scope="module")
def cases(models, made, load, kept):
    """For each family a projection, its clip and its vision encoder."""
    if "refiner" not in kept:
        kept["refiner"] = load(clip=models.refiner, clip_vision=models.vision_g)
        kept["sd2"] = load(clip=models.sd2, clip_vision=models.vision_h)
    return {
        "sdxl": (made, models.sdxl, models.vision),
        "refiner": (kept["refiner"], models.refiner, models.vision_g),
        "sd2": (kept["sd2"], models.sd2, models.vision_h),
    }


def core(clip, text: str):
    """Core's CLIPTextEncode: states and pooled vector."""
    import nodes

    with torch.inference_mode():
        [[states, extras]] = nodes.CLIPTextEncode().encode(clip, text)[0]
    return states, extras["pooled_output"]
