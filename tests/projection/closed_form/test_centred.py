"""The centred form: laws of its geometry, against arithmetic in float64."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    MIN_PICTURES,
    CaptionStatistics,
    Centred,
    ImageToPromptError,
    Projection,
    Residual,
    fit_from_text,
    picture_direction,
    visual_direction,
)
from image_to_prompt.tests.fixtures import builders

WIDTH = 32
EMBEDS = builders.normal(6, WIDTH, seed=9)
PLAIN = builders.small_projection(WIDTH)
W_T, W_V = builders.text_projection(WIDTH), builders.visual_projection(WIDTH)
GAPS = (1e-6, 0.25, 0.5, 0.75, 1.0)


def captions_states(count: int = 64):
    common = 19 * normalize(builders.normal(1, WIDTH, seed=21), dim=-1)
    return builders.normal(count, WIDTH, seed=20) * 3.6 + common


STATISTICS = CaptionStatistics.of(captions_states())


def centred(gap: float = 1.0, removed: float = 1.0, **changes) -> Centred:
    return replace(Centred.of(W_T, STATISTICS, visual_direction(W_V), removed, gap), **changes)


def with_gap(gap: float, **changes) -> Projection:
    return replace(PLAIN, centred=centred(gap, **changes))


def cosine(a, b):
    return torch.cosine_similarity(a.double(), b.double(), dim=-1)


def oracle(v, removed=1.0, k=0.9):
    """k o + s unit(P W_t' (I - a c c') v) with the matrices written out, float64."""
    o = STATISTICS.offset.double()
    c = torch.linalg.svd(W_V.double(), full_matrices=False)[0][:, 0]
    eye = torch.eye(WIDTH, dtype=torch.float64)
    P = eye - torch.outer(o, o) / (o @ o)
    u = v.double() @ (P @ W_T.double().T @ (eye - removed * torch.outer(c, c))).T
    s = math.sqrt(STATISTICS.spread**2 + (1 - k * k) * float(o @ o))
    return k * o + s * u / u.norm(dim=-1, keepdim=True)


# --- the form ---------------------------------------------------------------------------------


@pytest.mark.parametrize("removed", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("k", [0.0, 0.9, 1.0])
def test_at_gap_1_the_formula_holds(removed, k):
    found = with_gap(1.0, removed=removed, offset_share=k).apply(EMBEDS)
    assert torch.allclose(found.double(), oracle(EMBEDS, removed, k), atol=1e-4)


@pytest.mark.parametrize("gap", GAPS[1:4])
def test_between_the_ends_directions_are_mixed_and_lengths_too(gap):
    zero, one = PLAIN.apply(EMBEDS).double(), oracle(EMBEDS)
    mixed = (1 - gap) * normalize(zero, dim=-1) + gap * normalize(one, dim=-1)
    length = (1 - gap) * 27.5 + gap * one.norm(dim=-1, keepdim=True)
    wanted = length * normalize(mixed, dim=-1)
    assert torch.allclose(with_gap(gap).apply(EMBEDS).double(), wanted, atol=1e-4)


def test_every_result_has_the_length_of_offset_and_spread():
    wanted = math.hypot(float(STATISTICS.offset.norm()), STATISTICS.spread)
    assert centred().length == pytest.approx(wanted, rel=1e-6)
    for k in (0.0, 0.5, 0.9, 1.0):
        length = with_gap(1.0, offset_share=k).apply(EMBEDS).norm(dim=-1)
        assert torch.allclose(length, torch.tensor(wanted), rtol=1e-5)


def test_what_is_added_to_the_common_part_is_orthogonal_to_the_offset():
    form = centred()
    deviation = form.states(EMBEDS) - form.common
    assert cosine(deviation, form.offset[None]).abs().max() < 1e-5


def test_the_share_of_the_mean_picture_that_is_removed_is_gone():
    c = centred().direction
    towards = EMBEDS + 5 * c  # more of the mean picture in each
    assert torch.allclose(centred().states(towards), centred().states(EMBEDS), atol=1e-3)
    half = centred(removed=0.5)
    assert not torch.allclose(half.states(towards), half.states(EMBEDS), atol=1.0)


def test_the_sign_of_the_direction_does_not_matter():
    form = centred(removed=0.7)
    assert torch.equal(replace(form, direction=-form.direction).states(EMBEDS), form.states(EMBEDS))


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e6])
def test_the_length_of_an_image_embedding_does_not_matter(gap, scale):
    projection = with_gap(gap)
    assert torch.allclose(projection.apply(scale * EMBEDS), projection.apply(EMBEDS), atol=1e-4)


@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_a_row_of_a_batch_is_that_row_alone(gap):
    batch = with_gap(gap).apply(EMBEDS)
    for index in range(len(EMBEDS)):
        alone = with_gap(gap).apply(EMBEDS[index : index + 1])
        assert torch.allclose(batch[index], alone[0], rtol=0, atol=27.5e-6)
    assert with_gap(gap).apply(EMBEDS[:0]).shape == (0, WIDTH)


# --- gap 0 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["plain", "with a bias", "with a residual"])
def test_gap_0_is_the_projection_without_it_bit_for_bit(start):
    projection = {
        "plain": PLAIN,
        "with a bias": builders.with_bias(PLAIN),
        "with a residual": replace(PLAIN, residual=residual()),
    }[start]
    closed = replace(projection, centred=centred(0.0))
    assert torch.equal(closed.apply(EMBEDS), projection.apply(EMBEDS))


def test_a_small_gap_is_a_small_change():
    assert torch.allclose(with_gap(1e-6).apply(EMBEDS), PLAIN.apply(EMBEDS), atol=1e-3)


def test_results_move_towards_the_offset_as_the_gap_grows():
    offset = STATISTICS.offset[None]
    towards = [
        float(cosine(with_gap(gap).apply(EMBEDS), offset).mean()) for gap in (0.0, *GAPS[1:])
    ]
    assert towards == sorted(towards)
    assert towards[-1] == pytest.approx(0.9 * float(offset.norm()) / centred().length, abs=1e-4)


# --- with trained parts -----------------------------------------------------------------------


def residual(size: float = 0.1) -> Residual:
    shapes = ((4, WIDTH), (WIDTH, 4), (WIDTH,))
    return Residual(*(size * builders.normal(*s, seed=30 + i) for i, s in enumerate(shapes)))


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
def test_a_zero_residual_changes_no_bit(gap):
    projection = with_gap(gap)
    corrected = replace(projection, residual=residual(0.0))
    assert torch.equal(corrected.apply(EMBEDS), projection.apply(EMBEDS))


@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_a_residual_turns_the_result_and_keeps_its_length(gap):
    projection = with_gap(gap)
    e, corrected = projection.apply(EMBEDS), replace(projection, residual=residual())
    wanted = residual().apply(e)
    found = corrected.apply(EMBEDS)
    assert torch.allclose(cosine(found, wanted), torch.ones(6, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(found.norm(dim=-1), e.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(found, e, atol=0.1)


def test_a_gap_can_be_trained_through():
    v = EMBEDS.clone().requires_grad_()
    with_gap(0.5).apply(v).square()[:, 0].sum().backward()
    assert torch.isfinite(v.grad).all()
    assert v.grad.any()


def test_text_least_squares_takes_the_place_of_the_transpose():
    projection = with_gap(0.5)
    fitted = fit_from_text(projection, captions_states(), text_projection=W_T)
    assert torch.equal(fitted.centred.matrix, fitted.matrix)
    assert fitted.centred.gap == 0.5
    assert torch.equal(fitted.centred.offset, projection.centred.offset)


# --- directions -------------------------------------------------------------------------------


def test_the_visual_direction_is_that_in_which_w_v_writes_most():
    c = visual_direction(W_V)
    along = (W_V.double().T @ c).norm()
    assert float(along) == pytest.approx(float(torch.linalg.matrix_norm(W_V.double(), 2)))
    assert float(c.norm()) == pytest.approx(1.0)


def test_the_picture_direction_is_that_of_the_mean_of_unit_embeddings():
    rows = builders.normal(9, WIDTH, seed=3) + 1
    scaled = rows * torch.arange(1, 10)[:, None]
    wanted = sum(row.double() / row.double().norm() for row in rows)
    c = picture_direction(scaled)
    assert torch.allclose(c, wanted / wanted.norm(), atol=1e-6)
    assert torch.allclose(picture_direction(scaled.flip(0)), c, atol=1e-12)


def test_too_few_pictures_have_no_direction():
    assert MIN_PICTURES == 8
    picture_direction(EMBEDS.repeat(2, 1)[:8] + 1)
    for rows in (EMBEDS.repeat(2, 1)[:7], EMBEDS[0]):
        with pytest.raises(ImageToPromptError, match="at least 8 pictures"):
            picture_direction(rows)


def test_pictures_that_cancel_out_have_no_direction():
    with pytest.raises(ImageToPromptError, match="pictures with a mean"):
        picture_direction(torch.cat([EMBEDS, -EMBEDS]))


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"gap": -0.1},
        {"gap": 1.1},
        {"gap": float("nan")},
        {"removed": 2.0},
        {"offset_share": -1.0},
        {"spread": 0.0},
        {"spread": float("inf")},
        {"matrix": W_T[:, :5]},
        {"matrix": W_T.double()},
        {"offset": torch.zeros(WIDTH)},
        {"offset": torch.full((WIDTH,), float("nan"))},
        {"direction": torch.ones(WIDTH)},
        {"direction": torch.zeros(WIDTH)},
    ],
)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(ImageToPromptError) as caught:
        centred(**changes)
    assert caught.value.subject == "projection file"


def test_a_form_of_another_encoder_is_refused():
    form = Centred(
        builders.normal(5, 7), builders.normal(5), normalize(builders.normal(7), dim=0), 1.0
    )
    with pytest.raises(ImageToPromptError, match=r"a centred form of \(32, 32\)"):
        replace(PLAIN, centred=form)


def test_the_mean_picture_itself_has_no_prompt():
    form = replace(centred(), matrix=torch.eye(WIDTH), direction=torch.eye(WIDTH)[0])
    with pytest.raises(ImageToPromptError, match="differs from the mean picture"):
        form.states(torch.eye(WIDTH)[:1])


def test_a_form_cannot_be_changed_and_changes_nothing():
    form, given = centred(), EMBEDS.clone()
    with pytest.raises(FrozenInstanceError):
        form.gap = 0.5
    before = form.copy()
    form.states(given)
    assert torch.equal(given, EMBEDS)
    assert torch.equal(form.matrix, before.matrix)
    assert before.matrix.data_ptr() != form.matrix.data_ptr()


def test_a_projection_with_a_gap_says_so():
    assert repr(with_gap(0.5)).endswith("gap 0.5)")
    assert "gap" not in repr(PLAIN)
