"""A residual on the image embedding of a family of two encoders. Random weights: wiring only."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    ImageToPromptError,
    PreservationConfig,
    Residual,
    ResidualConfig,
    load_projection,
    picture_prompt,
    refine,
    save_projection,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys
from image_to_prompt.tests.projection.training.test_family_training import (
    CONFIG,
    PooledDenoiser,
    by_part,
    null_pooled,
    projection,
    trainer,
)

EMBEDDING = replace(CONFIG, lora=None, residual=ResidualConfig(rank=2))


def test_a_residual_corrects_the_image_embedding_by_the_written_formula():
    run, embeds = trainer(config=EMBEDDING), toys.pictures(2).embeds
    assert torch.equal(run.current().corrected(embeds), embeds)
    list(refine(run, 3))
    found = run.result()
    down, up, shift = found.residual.tensors().values()
    assert up.any() and shift.any()
    n, length = normalize(embeds, dim=-1), embeds.norm(dim=-1, keepdim=True)
    wanted = embeds + length * (n @ down.T @ up.T + shift)
    assert torch.allclose(found.corrected(embeds), wanted, atol=1e-5)
    plain = replace(found, residual=None)
    assert torch.equal(found.apply(embeds), plain.apply(embeds))  # SD 1.x's, in another space
    assert torch.equal(projection().corrected(embeds), embeds)
    assert torch.equal(builders.small_projection().corrected(embeds), embeds)


def test_a_residual_is_trained_on_what_the_model_is_given():
    """The toy sees the corrected embedding's prompt, pooled text included."""
    denoiser, config = PooledDenoiser(), replace(EMBEDDING, preservation=PreservationConfig())
    run = trainer(denoiser, config)
    list(refine(run, 2))
    corrected = run.current()
    denoiser.given.clear()
    run.step()
    embeds = corrected.corrected(toys.pictures(2).embeds)
    wanted = picture_prompt(corrected.readings, embeds, by_part(toys.null(), 1, null_pooled()), 0.0)
    context, pooled = (torch.cat(each) for each in zip(*denoiser.given, strict=True))
    for row, vector in zip(context, pooled, strict=True):
        place = (wanted[0] - row).flatten(1).norm(dim=1).argmin()
        assert torch.allclose(wanted[0][place], row, atol=1e-5)
        assert torch.allclose(wanted[1][place], vector, atol=1e-5)


def test_a_residual_of_image_embeddings_is_saved_and_named(tmp_path):
    run = trainer(config=replace(EMBEDDING, lora=CONFIG.lora))
    list(refine(run, 2))
    found, embeds = run.result(), toys.pictures(2).embeds
    save_projection(found, tmp_path / "p")
    assert torch.equal(load_projection(tmp_path / "p").corrected(embeds), found.corrected(embeds))
    with safe_open(tmp_path / "p", "pt") as file:
        features = json.loads(file.metadata()["features"])
    assert "residual of image embeddings" in features  # which earlier versions refuse by name
    save_projection(replace(builders.small_projection(), residual=None), tmp_path / "q")
    with safe_open(tmp_path / "q", "pt") as file:
        assert json.loads(file.metadata()["features"]) == []


def test_a_file_that_could_not_name_it_yet_is_read_without_a_residual(tmp_path):
    """It had no effect there, since it was trained on SD 1.x's prompt embedding."""
    run = trainer(config=EMBEDDING)
    list(refine(run, 2))
    save_projection(run.result(), tmp_path / "p")
    with safe_open(tmp_path / "p", "pt") as file:
        metadata = {**file.metadata(), "features": json.dumps(["readings", "residual"])}
    save_file(load_file(tmp_path / "p"), tmp_path / "q", metadata)
    loaded = load_projection(tmp_path / "q")
    assert loaded.residual is None and loaded.readings is not None


def test_a_residual_of_sd1_is_left_out_where_readings_are_made():
    plain, width = builders.small_projection(), projection().encoder.text_width
    part = Residual(torch.zeros(1, width), torch.zeros(width, 1), torch.ones(width))
    made = replace(plain, residual=part).with_readings(projection().readings)
    assert made.residual is None
    width = projection().encoder.joint_width
    joint = Residual(torch.zeros(1, width), torch.zeros(width, 1), torch.ones(width))
    own = replace(projection(), residual=joint)
    assert own.with_readings(own.readings).residual is joint


def test_a_residual_of_another_width_is_refused():
    wide = Residual(torch.zeros(1, 5), torch.zeros(5, 1), torch.zeros(5))
    with pytest.raises(ImageToPromptError, match=f"width {projection().encoder.joint_width}"):
        replace(projection(), residual=wide)
