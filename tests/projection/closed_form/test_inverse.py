"""The inverses of the text projection against references computed by other means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from image_to_prompt.projection import METHODS, decompose, invert, portable_cutoff
from image_to_prompt.projection.closed_form.inverse import nonzero_values
from image_to_prompt.tests.fixtures import builders


def eigen_pseudo_inverse(weight: Tensor, cutoff: float) -> Tensor:
    """W^+ (D, J) float64 from the eigenvectors of W^T W, without any SVD."""
    w = weight.double()
    squares, vectors = torch.linalg.eigh(w.T @ w)
    keep = squares >= cutoff**2
    return (vectors[:, keep] / squares[keep]) @ vectors[:, keep].T @ w.T


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def reference(text_projection):
    return eigen_pseudo_inverse(text_projection, 0.3)


@pytest.fixture(scope="module")
def paper(text_projection):
    """The inverse under test, from the matrix itself."""
    return invert(text_projection, "pseudo-inverse", 0.3)


def test_the_paper_cutoff_keeps_607_of_768_directions(paper):
    assert paper.kept == 607


def test_every_direction_agrees_with_an_eigenvector_reference(paper, reference, image_embeds):
    v = image_embeds.double()
    assert cosines(v @ paper.matrix.double().T, v @ reference.T).min() >= 0.99999


def test_the_pseudo_inverse_equals_the_reference_to_single_precision(paper, reference):
    """Half precision anywhere, in the input or the factors, is off by 1e-3."""
    assert relative_error(paper.matrix, reference) < 2e-6


def test_the_pseudo_inverse_equals_the_authors_call(text_projection, paper):
    authors = torch.linalg.pinv(text_projection.double(), atol=0.3, rtol=0.0)
    assert relative_error(paper.matrix, authors) < 2e-6


def test_the_pseudo_inverse_solves_least_squares(text_projection, svd, paper, image_embeds):
    wanted = torch.linalg.lstsq(
        text_projection.double(),
        image_embeds.double().T,
        rcond=0.3 / float(svd.values[0]),
        driver="gelsd",
    )
    assert int(wanted.rank) == paper.kept
    assert cosines(image_embeds @ paper.matrix.T, wanted.solution.T).min() >= 0.99999


def test_the_cutoff_is_absolute_and_not_relative_to_the_largest(
    text_projection, svd, paper, image_embeds
):
    """`rtol=0.3` in place of `atol=0.3` would keep 562 and turn every prompt."""
    assert int((svd.values > 0.3 * svd.values[0]).sum()) == 562
    relative = torch.linalg.pinv(text_projection.double(), atol=0.0, rtol=0.3)
    v = image_embeds.double()
    assert cosines(v @ paper.matrix.double().T, v @ relative.T).mean() < 0.96


def test_the_bound_above_does_tell_a_half_precision_decomposition(svd, reference):
    left, values, right = (part.half().double() for part in (svd.left, svd.values, svd.right))
    keep = values >= 0.3
    half = (right.T[:, keep] / values[keep]) @ left.T[keep]
    assert relative_error(half, reference) > 1e-4


def test_a_half_precision_copy_of_the_weights_keeps_the_directions(
    text_projection, paper, image_embeds
):
    half = invert(text_projection.half(), "pseudo-inverse", 0.3)
    assert half.kept == paper.kept == 607
    assert cosines(image_embeds @ paper.matrix.T, image_embeds @ half.matrix.T).min() > 0.9999


def test_without_a_real_cut_the_inverse_is_mostly_noise(svd, paper, image_embeds):
    uncut = invert(svd, "pseudo-inverse", 1e-9).matrix
    assert cosines(image_embeds @ paper.matrix.T, image_embeds @ uncut.T).mean() < 0.5


def test_the_portable_rule_gives_the_paper_inverse_on_vit_l14(svd, paper):
    cutoff = portable_cutoff(svd.values)
    assert cutoff == pytest.approx(0.29993, abs=5e-6)
    portable = invert(svd, "pseudo-inverse", cutoff)
    assert portable.kept == 607
    assert torch.equal(portable.matrix, paper.matrix)


def test_the_moore_penrose_identities_hold_for_what_is_kept(text_projection, paper):
    w, e = text_projection.double(), paper.matrix.double()
    assert torch.allclose(e @ w @ e, e, atol=1e-6)
    for projector in (e @ w, w @ e):
        assert torch.allclose(projector, projector.T, atol=1e-6)
        assert float(projector.trace()) == pytest.approx(607, abs=1e-3)


def test_a_singular_value_equal_to_the_cutoff_is_kept():
    weight = torch.diag(torch.tensor([1.0, 0.5, 0.25, 0.125]))
    inverse = invert(weight, "pseudo-inverse", 0.25)
    assert inverse.kept == 3
    assert torch.equal(inverse.matrix, torch.diag(torch.tensor([1.0, 2.0, 4.0, 0.0])))


@pytest.mark.parametrize("cutoff", [0.03, 0.1, 0.3, 2.0])
def test_ridge_is_the_regularised_normal_equation(text_projection, svd, cutoff):
    w = text_projection.double()
    wanted = torch.linalg.solve(w.T @ w + cutoff**2 * torch.eye(768).double(), w.T)
    inverse = invert(svd, "ridge", cutoff)
    assert relative_error(inverse.matrix, wanted) < 2e-6
    assert inverse.kept == 768


def test_transpose_is_the_transpose_and_ignores_the_cutoff(text_projection, svd):
    inverse = invert(svd, "transpose", 0.3)
    assert torch.allclose(inverse.matrix, text_projection.T, atol=1e-6)
    assert torch.equal(inverse.matrix, invert(svd, "transpose", 7.0).matrix)
    assert inverse.kept == 768


def test_a_large_ridge_turns_towards_the_transpose_and_a_small_one_to_the_inverse():
    w, v = builders.with_spectrum(torch.linspace(1.2, 0.4, 32).double()), builders.normal(20, 32)
    ridge = {cut: v @ invert(w, "ridge", cut).matrix.T for cut in (1e-4, 1e3)}
    exact = torch.linalg.solve(w.double(), v.double().T).T
    assert cosines(ridge[1e-4], exact).min() > 0.99999
    assert cosines(ridge[1e3], v @ w).min() > 0.99999


def test_a_96_wide_core_in_a_768_wide_encoder_gives_its_own_cutoff():
    factors = builders.orthogonal(768, 0)[:, :96], builders.orthogonal(768, 1)[:96]
    values = builders.spectrum(96)
    weight = ((factors[0] * values) @ factors[1]).float()
    svd = decompose(weight)
    assert portable_cutoff(svd.values) == pytest.approx(0.7 * float(values.median()), rel=0.02)
    assert invert(svd, "transpose", 1.0).kept == 96


def widened(core: Tensor, times: int) -> Tensor:
    """An encoder whose every channel is repeated: the same function, mostly zero directions."""
    return core.repeat_interleave(times, 0).repeat_interleave(times, 1) / times


@pytest.mark.parametrize("method", sorted(METHODS))
def test_directions_that_are_zero_but_for_rounding_carry_nothing(method):
    weight = widened(builders.text_projection(96), 4)
    inverse = invert(weight, method, 1e-12)
    assert len(inverse.singular_values) == 384
    assert inverse.kept == 96


def test_numerical_zeros_do_not_count_in_the_median():
    core = builders.text_projection(96)
    narrow = decompose(core).values
    wide = decompose(widened(core, 4)).values
    assert len(wide) == 384
    assert len(nonzero_values(wide)) == 96
    assert portable_cutoff(wide) == pytest.approx(portable_cutoff(narrow), rel=1e-6)
    assert portable_cutoff(wide) == pytest.approx(0.7 * float(narrow.quantile(0.5)), rel=1e-6)


def test_a_widened_encoder_keeps_as_much_as_the_narrow_one():
    core = builders.text_projection(96)
    narrow, wide = decompose(core), decompose(widened(core, 4))
    kept = {
        invert(svd, "pseudo-inverse", portable_cutoff(svd.values)).kept for svd in (narrow, wide)
    }
    assert len(kept) == 1


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_matrix_that_is_not_square_inverts_to_the_transposed_shape(shape, method):
    weight = builders.normal(*shape)
    inverse = invert(weight, method, 0.5)
    assert inverse.matrix.shape == shape[::-1]
    assert inverse.singular_values.shape == (12,)
    if method == "pseudo-inverse":
        wanted = eigen_pseudo_inverse(weight, 0.5)
        assert relative_error(inverse.matrix, wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_are_float32_whatever_the_weights_are(dtype):
    inverse = invert(builders.text_projection(32).to(dtype), "pseudo-inverse", 0.3)
    assert inverse.matrix.dtype == inverse.singular_values.dtype == torch.float32
    assert (inverse.singular_values.diff() <= 0).all()


def test_a_matrix_and_its_decomposition_invert_alike():
    weight = builders.text_projection(32)
    one, other = (invert(w, "ridge", 0.1) for w in (weight, decompose(weight)))
    assert torch.equal(one.matrix, other.matrix)
    assert (one.kept, one.cutoff) == (other.kept, other.cutoff)


def test_inverting_leaves_the_weights_alone():
    weight = builders.text_projection(32).clone()
    before = weight.clone()
    for method in METHODS:
        invert(weight, method, 0.3)
    assert torch.equal(weight, before)
