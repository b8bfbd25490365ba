"""Text projections out of CLIP files in every layout that is in use."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    ImageToPromptError,
    Projection,
    load_file,
    read_clip_projections,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fixtures.builders import write

LAYOUTS = {
    "transformers": builders.transformers_clip,
    "openclip": builders.openclip_clip,
    "custom text clip": builders.custom_text_clip,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clip.safetensors"


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_gives_the_same_matrices_in_the_same_orientation(layout, path):
    read = read_clip_projections(write(path, LAYOUTS[layout]()))
    assert torch.equal(read.text, builders.text_projection())
    assert torch.equal(read.visual, builders.visual_projection())


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_gives_the_same_projection(layout, path):
    loaded = load_file(write(path, LAYOUTS[layout]()))
    direct = Projection.from_text_projection(
        builders.text_projection(), builders.visual_projection()
    )
    assert torch.equal(loaded.matrix, direct.matrix)
    assert loaded.encoder == direct.encoder


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_projection_that_is_not_square_is_read_the_right_way_round(layout, path):
    tensors = LAYOUTS[layout]()
    rectangle = builders.normal(32, 20)  # (J, D)
    for key in list(tensors):
        if "text_projection" in key:
            tensors[key] = rectangle if key.endswith("weight") else rectangle.T
    assert torch.equal(read_clip_projections(write(path, tensors)).text, rectangle)


def test_linear_weights_under_text_are_not_transposed(path):
    tensors = {"text.text_projection.weight": builders.text_projection()}
    assert torch.equal(read_clip_projections(write(path, tensors)).text, builders.text_projection())


def test_a_text_encoder_with_its_projection_is_enough(path):
    read = read_clip_projections(write(path, builders.text_only(projection=True)))
    assert read.visual is None
    projection = load_file(path)
    assert projection.encoder.vision_width is None
    assert projection.encoder.visual_projection is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_files_of_any_float_precision_are_read_as_float32(path, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in builders.transformers_clip().items()}
    read = read_clip_projections(write(path, tensors))
    assert read.text.dtype == read.visual.dtype == torch.float32
    assert torch.equal(read.text, builders.text_projection().to(dtype).float())


def test_what_was_read_outlives_the_file(path):
    read = read_clip_projections(write(path, builders.transformers_clip()))
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(read.text, builders.text_projection())


def test_method_and_cutoff_apply_to_a_clip_file(path):
    write(path, builders.transformers_clip())
    projection = load_file(path, method="ridge", cutoff=0.25)
    assert (projection.method, projection.cutoff) == ("ridge", 0.25)


def test_a_stable_diffusion_checkpoint_is_told_apart_by_its_keys(path):
    write(path, builders.sd1_checkpoint())
    with pytest.raises(ImageToPromptError, match="Stable Diffusion checkpoint") as caught:
        load_file(path)
    for part in ("clip-vit-large-patch14", "model.safetensors"):
        assert part in caught.value.do
