"""Closed forms and scores do what their formulas say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from image_to_prompt.tests.miniature.experiments import closed_forms as forms
from image_to_prompt.tests.miniature.experiments import scores
from image_to_prompt.tests.miniature.training.common import generator_of

WIDTH = 24


@pytest.fixture()
def trained():
    """A projection with a wide spectrum, and states around a mean, as a text encoder has."""
    g = generator_of(8, 0)
    left, right = (torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g)).Q for _ in range(2))
    W = left @ torch.diag(torch.logspace(0, -1.5, WIDTH)) @ right
    states = torch.randn(400, WIDTH, generator=g) + 2 * torch.randn(WIDTH, generator=g)
    return W, F.normalize(states, dim=-1) * 9.7


def cosine(W, states, form):
    return F.cosine_similarity(forms.apply(form, states @ W.T, 9.7), states).mean()


def test_without_noise_the_uncut_inverse_is_exact(trained):
    W, states = trained
    assert cosine(W, states, forms.uncut(W)) > 0.999


def test_the_null_space_part_gives_back_what_the_cut_takes_from_the_mean(trained):
    W, states = trained
    matrix, bias = forms.null_space(W, states, cutoff=0.3)
    inverse = forms.linear(W, cutoff=0.3)[0]
    assert (inverse @ W @ bias).norm() < 1e-4  # the bias lies where the cut inverse gives nothing
    mean = states.mean(dim=0)
    assert torch.allclose(inverse @ (W @ mean) + bias, mean, atol=1e-4)
    assert cosine(W, states, (matrix, bias)) > cosine(W, states, (inverse, 0 * bias)) + 0.01


def test_least_squares_from_text_beats_the_cut_inverse_on_text(trained):
    W, states = trained
    ridge = forms.text_ridge(W, states[:300])
    assert cosine(W, states[300:], ridge) > cosine(W, states[300:], forms.linear(W)) + 0.01


def test_the_length_of_the_embedding_does_not_matter(trained):
    W, states = trained
    form = forms.null_space(W, states)
    v = states[:5] @ W.T
    assert torch.allclose(forms.apply(form, v, 9.7), forms.apply(form, 40 * v, 9.7), atol=1e-4)
    assert torch.allclose(forms.apply(form, v, 9.7).norm(dim=-1), torch.tensor(9.7))


def test_wilsons_interval_is_the_textbook_one():
    interval = scores.share(torch.tensor([True] * 8 + [False] * 2))
    assert interval["value"] == pytest.approx(0.8)
    assert interval["low"] == pytest.approx(0.4902, abs=1e-3)
    assert interval["high"] == pytest.approx(0.9433, abs=1e-3)
    assert scores.share(torch.ones(10))["high"] == pytest.approx(1.0)


def test_unreadable_pictures_do_not_enter_a_mean():
    values = torch.tensor([1.0, 3.0, torch.nan])
    assert scores.mean(values)["value"] == pytest.approx(2.0)
    assert scores.mean(torch.tensor([torch.nan]))["value"] is None
