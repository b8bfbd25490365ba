"""What is a trained text projection, and what only looks like a matrix."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError, Projection
from image_to_prompt.projection.guards import (
    check_entries,
    check_spectrum,
    quarter_circle_distance,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fixtures.builders import generator, normal

SIZES = (96, 512, 768, 1280)


def singular_values(weight):
    """Descending; by eigenvalues, which is fast enough for many draws at full width."""
    w = weight.double()
    return torch.linalg.eigvalsh(w.T @ w).clamp_min(0).sqrt().flip(0)


def refused(weight):
    """What the guards say against a matrix."""
    with pytest.raises(ImageToPromptError, match="a trained CLIP text projection") as caught:
        check_entries(weight)
        check_spectrum(singular_values(weight))
    assert "clip-vit-large-patch14" in caught.value.do
    return caught.value.got


def uniform(*shape, seed):
    return torch.rand(shape, generator=generator(seed)) * 2 - 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("draw", [normal, uniform])
def test_random_numbers_are_refused_at_every_width(size, draw):
    assert "random numbers" in refused(draw(size, size, seed=size) * 0.03)


@pytest.mark.parametrize("seed", range(12))
def test_random_numbers_are_refused_for_every_seed(seed):
    assert "random numbers" in refused(normal(256, 256, seed=seed) * 0.1)


@pytest.mark.parametrize("size", SIZES)
def test_an_identity_is_refused(size):
    assert "identity" in refused(torch.eye(size))


@pytest.mark.parametrize("scale", [0.1, 0.41, 10.0])
def test_a_scaled_identity_is_refused(scale):
    assert "identity" in refused(torch.eye(768) * scale)


@pytest.mark.parametrize("size", [96, 768])
def test_a_rotation_is_refused(size):
    assert "rotation" in refused(builders.orthogonal(size, 4).float())


def test_a_permutation_is_refused():
    assert "rotation" in refused(torch.eye(96)[torch.randperm(96, generator=generator(0))])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_zeros_are_refused(dtype):
    assert "zeros" in refused(torch.zeros(96, 96, dtype=dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("everywhere", [True, False])
def test_numbers_that_are_not_finite_are_refused(value, everywhere):
    weight = builders.text_projection(32).clone()
    weight[slice(None) if everywhere else 3, 5] = value
    assert "NaN" in refused(weight)


@pytest.mark.parametrize("size", [1e-6, 1e-4])
def test_leftovers_of_memory_are_refused(size):
    assert "wrong size" in refused(normal(768, 768) * size * 1e-1)


@pytest.mark.parametrize("scale", [1e-3, 100.0])
def test_a_real_spectrum_of_the_wrong_size_is_refused(scale):
    assert "wrong size" in refused(builders.text_projection(96) * scale)


@pytest.mark.parametrize("rank", [1, 2, 40])
def test_a_matrix_of_low_rank_is_refused(rank):
    low = normal(768, rank, seed=1) @ normal(rank, 768, seed=2)
    assert f"rank {rank}" in refused_values(torch.linalg.svdvals(low.double()))


def refused_values(values):
    with pytest.raises(ImageToPromptError) as caught:
        check_spectrum(values)
    return caught.value.got


@pytest.mark.parametrize("shape", [(768,), (1, 768), (768, 1), (2, 8, 8), (), (0, 4)])
def test_what_is_no_matrix_is_refused(shape):
    assert "shape" in refused(torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_integers_are_refused(dtype):
    assert str(dtype) in refused(torch.eye(32).to(dtype))


def test_complex_numbers_are_refused():
    assert "complex64" in refused(torch.eye(32, dtype=torch.complex64))


@pytest.mark.parametrize("count", [64, 96, 768])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_real_spectrum_is_accepted_in_any_precision(count, dtype):
    check_entries(builders.text_projection(count).to(dtype))
    check_spectrum(singular_values(builders.text_projection(count).to(dtype)))


def test_a_spectrum_like_that_of_rn50x64_is_accepted():
    """1024 wide, largest 1.195, median 0.413, smallest 5e-6: the published shape."""
    values = builders.spectrum(1024)
    values = values * (0.413 / values.median())
    values[0], values[-1] = 1.195, 1.195 / 2.4e5
    check_spectrum(values)


def test_an_encoder_widened_from_96_channels_is_accepted():
    values = torch.cat([builders.spectrum(96), torch.full((672,), 1e-16).double()])
    check_spectrum(values)


def test_widened_random_numbers_are_refused():
    core = singular_values(normal(96, 96, seed=5) * 0.1)
    assert "random" in refused_values(torch.cat([core, torch.zeros(672).double()]))


def test_the_distance_to_random_numbers_is_as_measured():
    assert quarter_circle_distance(builders.spectrum()) == pytest.approx(0.31, abs=0.01)
    for seed in range(3):
        values = singular_values(normal(512, 512, seed=seed))
        assert quarter_circle_distance(values) < 2.5 / 512 + 0.003


@pytest.mark.parametrize("bad", [torch.eye(96), normal(96, 96) * 0.05, torch.zeros(96, 96)])
def test_no_projection_is_made_of_what_the_guards_refuse(bad):
    with pytest.raises(ImageToPromptError, match="trained CLIP text projection"):
        Projection.from_text_projection(bad)
