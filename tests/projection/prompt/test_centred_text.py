"""Text and several pictures with a centred projection: the common part is there once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    BLENDS,
    CaptionStatistics,
    Centred,
    apply_strength,
    assemble,
    condition,
    image_slots,
    spherical_mean,
    visual_direction,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fixtures.builders import normal

WIDTH = 32
EMBEDS = normal(5, WIDTH, seed=9)
CASES = [(1, [1]), (1, [4]), (1, [76]), (2, [76, 20])]
blends = pytest.mark.parametrize("blend", sorted(BLENDS))


def captions_states(count: int = 64):
    common = 19 * normalize(normal(1, WIDTH, seed=21), dim=-1)
    return normal(count, WIDTH, seed=20) * 3.6 + common


def form(gap: float) -> Centred:
    statistics = CaptionStatistics.of(captions_states())
    direction = visual_direction(builders.visual_projection())
    return Centred.of(builders.text_projection(), statistics, direction, 1.0, gap)


def embeddings(gap: float = 1.0, count: int = 2):
    plain = 27.5 * normalize(EMBEDS[:count] @ builders.text_projection(), dim=-1)
    mixed, length = form(gap).blend(plain, 27.5, EMBEDS[:count])
    return length * normalize(mixed, dim=-1)


def text_states(chunks: int = 1):
    text = captions_states(77 * chunks)[None].clone()
    text[:, ::77] = normal(WIDTH, seed=99)
    return text


# --- text -------------------------------------------------------------------------------------


@blends
@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_gap_0_is_the_edit_without_a_centred_form_bit_for_bit(chunks, eos, blend):
    text, e = text_states(chunks), embeddings()
    for weight in (0.0, 0.6, 2.0):
        plain = BLENDS[blend](text, eos, e, weight)
        assert torch.equal(BLENDS[blend](text, eos, e, weight, form(0.0)), plain)
        assert torch.equal(condition(text, eos, e, weight, blend, form(0.0)), condition(
            text, eos, e, weight, blend
        ))  # fmt: skip


@blends
@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_start_states_and_words_stay_untouched(chunks, eos, blend):
    text = text_states(chunks)
    found = BLENDS[blend](text, eos, embeddings(), 0.6, form(1.0))
    slots = image_slots(eos, text)
    assert torch.equal(found[:, ~slots], text[:, ~slots].expand(2, -1, -1))


@blends
@pytest.mark.parametrize("weight", [0.3, 0.6, 1.8])
def test_at_gap_1_the_deviation_from_the_common_part_keeps_its_length(blend, weight):
    text, e, one = text_states(), embeddings(), form(1.0)
    found = BLENDS[blend](text, [4], e, weight, one)[:, 4:].double()
    base = 0.9 * one.offset.double()
    d = e.double() - base
    mixed = d[:, None] + weight * (text[:, 4:].double() - base)
    wanted = base + d.norm(dim=-1)[:, None, None] * normalize(mixed, dim=-1)
    assert torch.allclose(found, wanted, atol=1e-4)


@blends
@pytest.mark.parametrize("gap", [0.3, 0.7])
def test_between_the_ends_the_length_is_kept_to_the_power_of_the_gap(blend, gap):
    text, e = text_states(), embeddings(gap)
    found = BLENDS[blend](text, [4], e, 0.6, form(gap))[:, 4:].double()
    base = gap * 0.9 * form(gap).offset.double()
    d = e.double() - base
    mixed = d[:, None] + 0.6 * (text[:, 4:].double() - base)
    kept = d.norm(dim=-1)[:, None, None] / mixed.norm(dim=-1, keepdim=True)
    power = gap if blend == "add" else 1.0
    assert torch.allclose(found, base + mixed * kept**power, atol=1e-4)


@blends
def test_a_small_gap_is_a_small_change(blend):
    text, e = text_states(), embeddings(1e-6)
    near = BLENDS[blend](text, [4], e, 0.6, form(1e-6))
    assert torch.allclose(near, BLENDS[blend](text, [4], e, 0.6), atol=1e-3)


@blends
@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_without_text_weight_the_picture_fills_its_slots_alone(blend, gap):
    text, e = text_states(), embeddings(gap)
    found = BLENDS[blend](text, [5], e, 0.0, form(gap))
    assert torch.equal(found[:, 5:], e[:, None].expand(-1, 72, -1))


@blends
def test_an_empty_text_is_the_picture_alone(blend):
    text, e = text_states(), embeddings()
    found = condition(text, [1], e, 0.6, blend, form(1.0))
    assert torch.equal(found, assemble(text[0, 0], e))


@blends
def test_strength_0_is_the_empty_prompt_bit_for_bit(blend):
    null = text_states()
    found = condition(text_states(), [4], embeddings(), 0.6, blend, form(1.0))
    assert torch.equal(apply_strength(found, null, 0.0), null.expand(2, -1, -1))


def test_a_row_of_a_batch_is_that_row_alone():
    text, e = text_states(), embeddings()
    batch = condition(text, [4], e, 0.6, centred=form(1.0))
    assert torch.equal(batch[1:], condition(text, [4], e[1:], 0.6, centred=form(1.0)))


# --- several pictures -------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_copies_of_a_picture_are_the_picture_bit_for_bit(gap):
    e = embeddings(gap, 1)
    mean = spherical_mean(e.expand(4, -1), [1.0, 0.5, 2.0, 0.1], form(gap).common)
    assert torch.equal(mean, e)


@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_the_order_of_pictures_never_matters(gap):
    e, weights = embeddings(gap, 4), [1.0, 0.5, 2.0, 0.1]
    common = form(gap).common
    found = [
        spherical_mean(e[list(order)], [weights[i] for i in order], common)
        for order in itertools.permutations(range(4))
    ]
    assert all(torch.equal(mean, found[0]) for mean in found)


def test_the_mean_keeps_the_common_part_and_the_length_of_the_deviation():
    e, one = embeddings(count=5), form(1.0)
    mean = spherical_mean(e, common=one.common)
    deviations = e - one.common
    assert torch.allclose((mean - one.common).norm(), deviations.norm(dim=-1).mean(), rtol=1e-5)
    assert float(torch.cosine_similarity(mean - one.common, one.common[None])) == pytest.approx(
        0.0, abs=1e-5
    )
    assert mean.norm().item() == pytest.approx(one.length, rel=1e-5)


def test_the_mean_of_two_lies_halfway_between_their_deviations():
    e, common = embeddings(count=2), form(1.0).common
    d = (spherical_mean(e, common=common) - common).expand(2, -1)
    cosine = torch.cosine_similarity(d, e - common)
    assert cosine[0].item() == pytest.approx(cosine[1].item(), abs=1e-5)


@pytest.mark.parametrize("common", [None, torch.zeros(WIDTH)])
def test_without_a_common_part_the_mean_is_that_of_the_sphere_about_0(common):
    e = embeddings(count=4)
    assert torch.equal(spherical_mean(e, common=common), spherical_mean(e))
