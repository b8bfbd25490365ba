"""The residual on e: nothing when zero, the formula when not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError, Residual
from image_to_prompt.tests.fixtures import builders

EMBEDS = builders.normal(6, 32, seed=1)


def residual(rank=3, scale=0.1):
    return Residual(
        builders.normal(rank, 32, seed=2),
        scale * builders.normal(32, rank, seed=3),
        scale * builders.normal(32, seed=4),
    )


@pytest.mark.parametrize("biased", [False, True])
def test_a_zero_residual_changes_no_bit(biased):
    plain = builders.small_projection()
    plain = builders.with_bias(plain) if biased else plain
    zero = Residual(builders.normal(3, 32), torch.zeros(32, 3), torch.zeros(32))
    assert torch.equal(replace(plain, residual=zero).apply(EMBEDS), plain.apply(EMBEDS))


@pytest.mark.parametrize("rank", [0, 3])
def test_the_residual_is_the_written_formula(rank):
    plain, part = builders.small_projection(), residual(rank)
    n = plain.apply(EMBEDS).double() / plain.norm
    moved = n + n @ part.down.double().T @ part.up.double().T + part.shift.double()
    expected = plain.norm * moved / moved.norm(dim=-1, keepdim=True)
    got = replace(plain, residual=part).apply(EMBEDS)
    assert torch.allclose(got.double(), expected, atol=1e-4)
    assert torch.allclose(got.norm(dim=-1), torch.tensor(plain.norm))
    assert not torch.allclose(got, plain.apply(EMBEDS), atol=0.1)


def test_the_length_of_the_embedding_still_does_not_matter():
    refined = replace(builders.small_projection(), residual=residual())
    assert torch.allclose(refined.apply(50 * EMBEDS), refined.apply(EMBEDS), atol=1e-4)


@pytest.mark.parametrize(
    "down, up, shift",
    [((3, 32), (32, 2), (32,)), ((3, 31), (32, 3), (32,)), ((3, 32), (32, 3), (31,)), ((3,),) * 3],
)
def test_parts_that_do_not_fit_are_refused(down, up, shift):
    with pytest.raises(ImageToPromptError, match="residual"):
        Residual(torch.zeros(down), torch.zeros(up), torch.zeros(shift))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(ImageToPromptError, match="finite"):
        Residual(torch.zeros(1, 4), torch.zeros(4, 1), torch.full((4,), bad))


def test_a_residual_of_another_text_encoder_is_refused():
    wrong = Residual(torch.zeros(1, 16), torch.zeros(16, 1), torch.zeros(16))
    with pytest.raises(ImageToPromptError, match="residual of width 32"):
        replace(builders.small_projection(), residual=wrong)
