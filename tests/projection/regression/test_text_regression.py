"""Least squares from text: the solver against torch's, and what the shift does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from image_to_prompt.projection import (
    ImageToPromptError,
    Projection,
    captions,
    fit_from_text,
    load_projection,
    save_projection,
)
from image_to_prompt.projection.regression.text_regression import mean_gap, text_projection_of
from image_to_prompt.tests.fixtures import builders

W = builders.text_projection(32)
PLAIN = Projection.from_text_projection(W)


def text_states(count=400, seed=1):
    """States of length about 27.5 around a mean, as end states are."""
    spread = builders.normal(count, 32, seed=seed)
    return 27.5 * normalize(builders.normal(32, seed=99) * 2 + spread, dim=-1)


def oracle(t, h, ridge):
    """min sum |M t + b - h|^2 + ridge |M|^2 by torch's own solver, the intercept free."""
    n = len(t)
    top = torch.cat([t, torch.ones(n, 1, dtype=t.dtype)], dim=1)
    bottom = torch.cat([ridge**0.5 * torch.eye(32, dtype=t.dtype), torch.zeros(32, 1).double()], 1)
    rows = torch.cat([top, bottom])
    solution = torch.linalg.lstsq(rows, torch.cat([h, torch.zeros(32, 32).double()])).solution
    return solution[:32].T, solution[32]


@pytest.mark.parametrize("ridge_lambda", [0.01, 0.3, 3.0])
def test_the_map_is_that_of_torchs_least_squares(ridge_lambda):
    h = text_states().double()
    t = normalize(h @ W.double().T, dim=-1)
    scale = float((t - t.mean(0)).square().mean())
    matrix, bias = oracle(t, h, ridge_lambda * scale * len(t))
    fitted = fit_from_text(PLAIN, h.float(), text_projection=W, ridge_lambda=ridge_lambda)
    assert torch.allclose(fitted.matrix.double(), matrix, atol=2e-3 * float(matrix.abs().max()))
    assert torch.allclose(fitted.bias.double(), bias, atol=1e-3 * float(bias.abs().max()))


def test_the_ridge_coefficient_has_its_earlier_name_too():
    now = fit_from_text(PLAIN, text_states(), text_projection=W, ridge_lambda=0.3)
    earlier = fit_from_text(PLAIN, text_states(), text_projection=W, damping=0.3)
    assert torch.equal(earlier.matrix, now.matrix) and earlier.cutoff == now.cutoff == 0.3
    other = fit_from_text(PLAIN, text_states(), text_projection=W)
    assert not torch.equal(other.matrix, now.matrix)
    with pytest.raises(ImageToPromptError, match="ridge_lambda"):
        fit_from_text(PLAIN, text_states(), text_projection=W, damping=0.0)


def test_held_out_captions_are_reached_better_than_by_the_closed_form():
    fitted = fit_from_text(PLAIN, text_states(), text_projection=W, ridge_lambda=0.01)
    other = text_states(seed=2)
    joint = other @ W.T
    near = cosine_similarity(fitted.apply(joint), other).mean()
    assert near > cosine_similarity(PLAIN.apply(joint), other).mean() + 0.02
    assert near > 0.97


def test_the_shift_undoes_any_gap_between_pictures_and_captions():
    states = text_states()
    joint = normalize(states @ W.T, dim=-1)
    gap = 0.1 * builders.normal(32, seed=5)
    pictures = normalize(joint + gap, dim=-1)
    plain = fit_from_text(PLAIN, states, text_projection=W, ridge_lambda=0.01)
    shifted = fit_from_text(PLAIN, states, pictures, W, ridge_lambda=0.01)
    assert torch.equal(plain.matrix, shifted.matrix)
    before = cosine_similarity(plain.apply(pictures), states).mean()
    after = cosine_similarity(shifted.apply(pictures), states).mean()
    assert after > before + 0.02 and after > 0.95


def test_pictures_that_lie_where_captions_do_shift_nothing():
    states = text_states()
    joint = states @ W.T
    shifted = fit_from_text(PLAIN, states, 5 * joint, W)
    assert torch.allclose(shifted.bias, fit_from_text(PLAIN, states, None, W).bias, atol=1e-4)
    assert mean_gap(joint, joint).abs().max() == 0


@pytest.mark.parametrize("size, vision", [(32, 48), (64, 48)])
def test_the_text_projection_comes_back_from_its_inverse(size, vision):
    weight = builders.text_projection(size)
    u, s, vt = torch.linalg.svd(weight.double())
    plain = Projection.from_text_projection(weight)
    cut = (u * torch.where(s >= plain.cutoff, s, 0.0)) @ vt
    assert torch.allclose(text_projection_of(plain).double(), cut, atol=1e-5)
    turned = Projection.from_text_projection(weight, method="transpose")
    assert torch.equal(text_projection_of(turned), weight)


def test_the_cut_directions_hardly_matter_to_the_fit():
    states = text_states()
    known, given = fit_from_text(PLAIN, states), fit_from_text(PLAIN, states, text_projection=W)
    joint = text_states(seed=3) @ W.T
    assert cosine_similarity(known.apply(joint), given.apply(joint)).min() > 0.98


def test_a_fitted_projection_is_saved_and_loaded_bit_for_bit(tmp_path):
    fitted = fit_from_text(PLAIN, text_states(), builders.normal(5, 32))
    save_projection(fitted, tmp_path / "p")
    loaded = load_projection(tmp_path / "p")
    assert torch.equal(loaded.matrix, fitted.matrix) and torch.equal(loaded.bias, fitted.bias)
    assert loaded.method == "text least squares" and loaded.cutoff == fitted.cutoff


def test_what_cannot_be_fitted_is_refused():
    states = text_states(4)
    ridge = replace(PLAIN, method="ridge")
    for arguments, words in (
        ((PLAIN, states[:1]), "captions"),
        ((PLAIN, states[:, :16]), "captions"),
        ((PLAIN, states[:1].expand(4, -1)), "differ"),
        ((PLAIN, states, torch.zeros(3, 16)), "Use image embeddings"),
        ((PLAIN, states, None, None, 0.0), "ridge_lambda"),
        ((PLAIN, states, None, None, float("nan")), "ridge_lambda"),
        ((ridge, states), "made by ridge"),
    ):
        with pytest.raises(ImageToPromptError, match=words):
            fit_from_text(*arguments)


def test_the_shipped_captions_are_many_different_and_always_the_same():
    found = captions(3000)
    assert len(set(found)) == len(found) == 3000
    assert captions(50) == found[:50] != captions(50, seed=1)
    assert all(3 <= len(caption) <= 300 and "  " not in caption for caption in found)
    assert len({word for caption in found for word in caption.split()}) > 200
    assert not any(f" a {vowel}" in f" {c}" for c in found for vowel in "aeio")


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_an_impossible_number_of_captions_is_refused(count):
    with pytest.raises(ImageToPromptError, match="captions"):
        captions(count)
