"""Unfinished runs of earlier versions: recognised by the same fingerprint, and gone on with.

The fingerprints and the file were made by the code before configurations had parts. Everything
that they are made of is exact in float32, so that they are the same on every machine.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    FIT,
    REFINE,
    ClipIdentity,
    EncodedPrompts,
    Projection,
    Recipe,
    Trainer,
    TrainingConfig,
    TrainingImages,
    fit,
    load_checkpoint,
)
from image_to_prompt.projection.checkpoint.run_file import run_fingerprint
from image_to_prompt.projection.config.recipe import recipe_fields
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

# Every field of a configuration differs from its default here.
ODD = {
    "embedding": 0.5,
    "cross_attention": 0.25,
    "residual_rank": 2,
    "cross_rank": 3,
    "pictures": 2,
    "levels": 3,
    "snr_limit": 5.0,
    "pull": 0.3,
    "drop": 0.4,
    "decay": 0.01,
    "layout": 49.0,
    "keep": 2,
    "keep_weight": 3.0,
    "keep_sets": 2,
    "strongest": 1.1,
    "prior": 2,
    "prior_weight": 0.5,
}
CONFIGS = {
    **{f"refine: {name}": config for name, config in REFINE.items()},
    **{f"fit: {name}": config for name, config in FIT.items()},
    "odd": Recipe(1e-2, **ODD),
}
FINGERPRINTS = json.loads((builders.FIXTURES / "run_fingerprints.json").read_text("ascii"))


def exact(*shape):
    """Multiples of 1/64."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 37 % 101 - 50) / 64).reshape(shape)


def images(count, offset=0):
    latents = tuple(exact(4, 4, 4) + offset + i / 8 for i in range(count))
    return TrainingImages(latents, exact(count, 32) + torch.eye(32)[:count] + offset)


def trainer(config):
    denoiser, tower, seen, held_out = toys.ToyDenoiser(), None, images(3), images(1, 1)
    denoiser.alphas_cumprod = (1000 - torch.arange(1000)) / 1024
    if config.deep_prompts is not None:
        tower = toys.tower()
        seen = replace(seen, pixels=exact(3, 3, 28, 28))
        held_out = replace(held_out, pixels=exact(1, 3, 28, 28))
    encoder = ClipIdentity(32, 32, 48, "0" * 64)
    plain = Projection(torch.eye(32), torch.ones(32), encoder, "pseudo-inverse", 0.25, 32)
    return Trainer(
        denoiser,
        plain,
        seen,
        exact(1, 77, 32),
        config,
        5,
        held_out,
        tower,
        schedule_steps=9,
        prompts=EncodedPrompts(exact(4, 77, 32), (3, 4, 5, 6)),
        prior=None if tower else images(2, 2),
    )


def test_every_preset_has_its_fingerprint():
    assert FINGERPRINTS.keys() == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fingerprint_is_that_of_earlier_versions(name):
    if CONFIGS[name].deep_prompts is not None:
        pytest.importorskip("transformers")
    assert run_fingerprint(trainer(CONFIGS[name])) == FINGERPRINTS[name]


def test_an_unfinished_fit_of_an_earlier_version_goes_on():
    run, whole = trainer(FIT["cross-attention"]), trainer(FIT["cross-attention"])
    load_checkpoint(run, builders.FIXTURES / "unfinished-fit-v1.safetensors")
    assert run.steps_done == run.optimizer.step == 3 and len(run.held_out_losses) == 4
    list(fit(run, 4))
    list(fit(whole, 4))
    # Bit for bit on one machine; the file comes from another.
    assert run.losses == pytest.approx(whole.losses, rel=1e-4)
    assert run.steps_done == whole.steps_done == 4


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_flat_fields_say_all_that_a_configuration_says(config):
    fields = recipe_fields(config)
    assert Recipe(**fields) == config


def test_an_unknown_field_of_a_recipe_is_named():
    assert Recipe(0.1) == TrainingConfig(0.1)
    with pytest.raises(TypeError, match="embeding"):
        Recipe(0.1, embeding=1.0)
