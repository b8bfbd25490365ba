"""What is a trained text projection, and what only looks like a matrix."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file as load_tensors

from image_to_prompt.projection import Decomposition, ImageToPromptError, Projection, decompose
from image_to_prompt.projection.closed_form.sanity import (
    agreement,
    check_entries,
    check_trained,
    random_matrix_distance,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fixtures.builders import generator, normal

MINIATURE = builders.ROOT / "tests" / "miniature" / "weights" / "clip.safetensors"
SIZES = (96, 512, 768, 1280)


def singular_values(weight):
    """Descending; by eigenvalues, which is fast enough for many draws at full width."""
    w = weight.double() if weight.shape[0] >= weight.shape[1] else weight.double().T
    return torch.linalg.eigvalsh(w.T @ w).clamp_min(0).sqrt().flip(0)


def check_values(values, shape=None):
    """The guards on singular values alone, of a square matrix or of one of this shape."""
    rows, columns = shape or (len(values), len(values))
    sides = torch.empty(rows, len(values)), torch.empty(len(values), columns)
    check_trained(Decomposition(sides[0], values, sides[1]))


def refused(weight):
    """What the guards say against a matrix."""
    with pytest.raises(ImageToPromptError, match="a trained CLIP text projection") as caught:
        check_entries(weight)
        check_values(singular_values(weight), weight.shape)
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


SHAPES = ((96, 128), (512, 768), (768, 512), (64, 2048), (100, 101))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draw", [normal, uniform])
def test_random_numbers_of_any_aspect_are_refused(shape, draw):
    assert "random numbers" in refused(draw(*shape, seed=1) * 0.03)


@pytest.mark.parametrize("shape", [*SHAPES, (96, 96), (512, 512)])
@pytest.mark.parametrize("mean", [0.003, 0.03, 0.05, -0.05])
def test_random_numbers_with_a_mean_are_refused(shape, mean):
    assert "random numbers" in refused(normal(*shape, seed=2) * 0.03 + mean)


@pytest.mark.parametrize("seed", range(12))
def test_random_numbers_of_one_sign_are_refused(seed):
    assert "random numbers" in refused(normal(128, 256, seed=seed).abs() * 0.03)


@pytest.mark.parametrize("shape", [(1024, 768), (768, 1024), (512, 768), (1, 1)])
def test_the_real_spectrum_is_accepted_at_any_aspect(shape):
    check_values(builders.spectrum(768), shape)


@pytest.mark.parametrize("aspect", [0.05, 0.3, 0.75, 0.95])
def test_the_law_is_the_integral_of_the_published_density(aspect):
    """Marchenko and Pastur's density, integrated by the midpoint rule."""
    low, high = (1 - aspect**0.5) ** 2, (1 + aspect**0.5) ** 2
    edges = torch.linspace(low, high, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = ((high - middle) * (middle - low)).sqrt() / (2 * torch.pi * aspect * middle)
    shares = density.cumsum(0) * (edges[1] - edges[0])
    # Values as the law itself places them are as near to it as a staircase can be.
    places = torch.searchsorted(shares, (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    values = middle[places].sqrt()
    assert random_matrix_distance(values, aspect) < 1e-3
    assert random_matrix_distance(values, aspect * 0.9) > 2e-3


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
        check_values(values)
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
    check_values(singular_values(builders.text_projection(count).to(dtype)))


def test_a_spectrum_like_that_of_rn50x64_is_accepted():
    """1024 wide, largest 1.195, median 0.413, smallest 5e-6: the published shape."""
    values = builders.spectrum(1024)
    values = values * (0.413 / values.median())
    values[0], values[-1] = 1.195, 1.195 / 2.4e5
    check_values(values)


def test_an_encoder_widened_from_96_channels_is_accepted():
    values = torch.cat([builders.spectrum(96), torch.full((672,), 1e-16).double()])
    check_values(values)


def test_widened_random_numbers_are_refused():
    core = singular_values(normal(96, 96, seed=5) * 0.1)
    assert "random" in refused_values(torch.cat([core, torch.zeros(672).double()]))


def test_the_distance_to_random_numbers_is_as_measured():
    assert random_matrix_distance(builders.spectrum()) == pytest.approx(0.31, abs=0.01)
    for seed in range(3):
        values = singular_values(normal(512, 512, seed=seed))
        assert random_matrix_distance(values) < 2.5 / 512 + 0.003


@pytest.mark.parametrize("bad", [torch.eye(96), normal(96, 96) * 0.05, torch.zeros(96, 96)])
def test_no_projection_is_made_of_what_the_guards_refuse(bad):
    with pytest.raises(ImageToPromptError, match="trained CLIP text projection"):
        Projection.from_text_projection(bad)


# --- trained from random numbers, and still looking like them ---------------------------------


def trained_pair(size, vision, pull, seed=0):
    """Random W_t and W_v, pulled into `size // 8` common joint directions."""
    common = builders.orthogonal(size, seed + 9)[:, : size // 8].float()
    pulls = [
        pull * common @ normal(size // 8, width, seed=seed + at) * size**-0.5
        for at, width in enumerate((size, vision), 3)
    ]
    return (
        normal(size, size, seed=seed + 1) * size**-0.5 + pulls[0],
        normal(size, vision, seed=seed + 2) * size**-0.5 + pulls[1],
    )


def repeated(weight, times=8):
    """Every channel several times, as the miniature is widened."""
    return weight.repeat_interleave(times, 0).repeat_interleave(times, 1) / times


@pytest.fixture(scope="module")
def miniature():
    """Both projections of the trained miniature: 96 wide, with the spectrum of random numbers."""
    state = load_tensors(MINIATURE)
    return state["text_projection.weight"].float(), state["visual_projection.weight"].float()


def test_the_miniature_is_accepted_for_its_agreement_alone(miniature):
    text, visual = miniature
    check_trained(decompose(text), visual)
    turned = builders.orthogonal(96, 3).float() @ visual
    with pytest.raises(ImageToPromptError, match="random numbers"):
        check_trained(decompose(text), turned)


def test_the_widened_miniature_is_accepted_and_keeps_its_agreement(miniature):
    wide, visual = (repeated(weight) for weight in miniature)
    svd = decompose(wide)
    assert int((svd.values > 1e-6).sum()) == 96
    assert agreement(svd, visual) == pytest.approx(agreement(decompose(miniature[0]), miniature[1]))
    assert Projection.from_text_projection(wide, visual).kept <= 96


def test_the_real_projections_agree(real):
    text, visual = real["text_projection.weight"], real["visual_projection.weight"]
    assert agreement(decompose(text), visual) == pytest.approx(11.04, abs=0.01)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("times", [1, 4])
def test_unrelated_random_numbers_do_not_agree(offset, times):
    """Not even with means of one sign, nor widened alike."""
    for seed in range(40):
        text, visual = (
            repeated(normal(64, width, seed=2 * seed + at) + offset, times)
            for at, width in enumerate((64, 80))
        )
        assert abs(agreement(decompose(text), visual)) < 4.5


def test_what_training_pulls_together_agrees():
    text, visual = trained_pair(128, 160, pull=1.0)
    assert agreement(decompose(text), visual) > 4.5


def test_agreement_does_not_excuse_an_identity_or_a_wrong_size(miniature):
    text, visual = miniature
    for bad, said in ((torch.eye(96), "identity"), (text * 1e-3, "wrong size")):
        with pytest.raises(ImageToPromptError, match=said):
            check_trained(decompose(bad), visual)
