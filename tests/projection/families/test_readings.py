"""Readings: what least squares finds, how long states are, which mean pictures lose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import ImageToPromptError, Readings, fit_readings
from image_to_prompt.tests.projection.families.toy_family import (
    TOY,
    J,
    captions,
    pictures,
    states_of,
)


@pytest.fixture(scope="module")
def readings():
    joint = captions(400)
    return fit_readings(TOY, joint, states_of(joint))


def test_states_of_new_captions_are_found_from_their_joint_embeddings(readings):
    joint = captions(60, seed=9)
    found = readings.apply(joint)
    for name, wanted in states_of(joint).items():
        offset = readings.readings[name].offset
        cosines = torch.cosine_similarity(found[name] - offset, wanted - offset)
        assert cosines.mean() > 0.97, name
        assert readings.readings[name].cosine > 0.97
        assert readings.readings[name].r_squared > 0.9


def test_least_squares_equals_the_solution_of_a_library(readings):
    joint = captions(400)
    t = normalize(joint.double(), dim=-1)
    kept = torch.arange(400) % 8 != 7
    x = t[kept] - t[kept].mean(0)
    h = states_of(joint)["b.eos"].double()[kept]
    y = (h - h.mean(0)) / (h - h.mean(0)).square().mean(0).sqrt()
    size = 0.1 * x.square().mean(0).mean()
    rows = torch.cat([x, (len(x) * size).sqrt() * torch.eye(J, dtype=x.dtype)])
    wanted = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(J, y.shape[1])])).solution.T
    found = readings.readings["b.eos"].matrix.double()
    assert torch.allclose(found / found.norm(), wanted / wanted.norm(), atol=1e-4)


def test_every_state_is_as_far_from_the_offset_as_captions_are(readings):
    for name, state in readings.apply(pictures(5)).items():
        reading = readings.readings[name]
        length = ((state - reading.offset) / reading.scale).norm(dim=-1)
        assert torch.allclose(length, torch.full_like(length, reading.spread), rtol=1e-4)


def test_a_channel_of_huge_numbers_changes_no_other_channel():
    joint = captions(400)
    states = states_of(joint)
    factor = torch.ones(states["a.eos"].shape[1])
    factor[3] = 1e4
    plain = fit_readings(TOY, joint, states).apply(pictures(5))["a.eos"]
    scaled = fit_readings(TOY, joint, {**states, "a.eos": factor * states["a.eos"]})
    assert torch.allclose(scaled.apply(pictures(5))["a.eos"] / factor, plain, rtol=1e-3, atol=1e-4)


def test_length_of_an_embedding_does_not_matter(readings):
    v = pictures(4)
    for name, state in readings.apply(v).items():
        assert torch.allclose(readings.apply(1000 * v)[name], state, atol=1e-4), name


# --- the centre -------------------------------------------------------------------------------


def test_the_mean_of_many_pictures_closes_the_gap(readings):
    v, own = pictures(200, gap=4.0), captions(200, seed=5)  # pictures are captions and a gap
    wanted = states_of(own)["b.eos"]
    offset = readings.readings["b.eos"].offset

    def cosine(some: Readings) -> float:
        found = some.apply(v)["b.eos"] - offset
        return float(torch.cosine_similarity(found, wanted - offset).mean())

    closed = cosine(readings.with_pictures(pictures(100, gap=4.0, seed=8)))
    assert cosine(readings) < 0.7 < 0.9 < closed


def test_the_direction_of_the_gap_stands_in_for_pictures(readings):
    gap = torch.zeros(J)
    gap[0] = -3.0  # neither length nor sign matter
    found = readings.with_direction(gap)
    assert not found.centre.any() and found.direction[0] == -1
    assert found.centred(pictures(5, gap=2.0))[:, 0].abs().max() < 1e-6


def test_few_pictures_without_a_mean_of_their_own_are_not_subtracted(readings):
    # Of 4 directions at random the mean is content alone; that of 4 alike is no content.
    content = torch.eye(J)[:4]
    assert not readings.with_pictures(content).centre.any()
    alike = torch.eye(J)[:4] * 0.1 + torch.ones(J)
    mean = normalize(alike, dim=-1).mean(0)
    assert torch.allclose(readings.with_pictures(alike).centre, mean, rtol=0.05)


def test_one_picture_has_no_mean(readings):
    with pytest.raises(ImageToPromptError, match="at least 2 pictures"):
        readings.with_pictures(pictures(1))


# --- what is refused --------------------------------------------------------------------------


def test_states_that_captions_do_not_explain_are_refused():
    joint = captions(400)
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ImageToPromptError, match=r"at least 0\.3 of held-out.*a\.pad"):
        fit_readings(TOY, joint, {**states_of(joint), "a.pad": noise})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"a.eos": torch.full((400, 6), float("nan"))}, "finite numbers"),
        ({"a.eos": torch.zeros(400, 5)}, r"a\.eos \(N, 6\)"),
        ({"a.eos": torch.ones(400, 6)}, "captions that differ"),
        ({"a.eos": torch.zeros(399, 6)}, r"a\.eos \(N, 6\)"),
        ({"c.eos": torch.zeros(400, 6)}, "states a.eos"),
    ],
)
def test_unfit_states_are_refused(changes, said):
    joint = captions(400)
    with pytest.raises(ImageToPromptError, match=said):
        fit_readings(TOY, joint, states_of(joint) | changes)


def test_too_few_or_equal_captions_are_refused():
    joint = captions(90)
    with pytest.raises(ImageToPromptError, match=">= 100 captions"):
        fit_readings(TOY, joint, states_of(joint))
    with pytest.raises(ImageToPromptError, match="all the same"):
        fit_readings(TOY, torch.ones(400, J), states_of(captions(400)))


def test_embeddings_of_another_encoder_and_none_are_refused(readings):
    with pytest.raises(ImageToPromptError, match=r"image embeddings \(B, 8\)"):
        readings.apply(torch.ones(1, 7))
    with pytest.raises(ImageToPromptError, match="not all zero"):
        readings.apply(torch.zeros(1, J))
    with pytest.raises(ImageToPromptError, match="differs from the mean picture"):
        replace(readings, centre=normalize(torch.ones(J), dim=0)).apply(torch.ones(1, J))


@pytest.mark.parametrize(
    "changes", [{"layer": 0}, {"captions": -1}, {"centre": torch.zeros(3)}, {"readings": {}}]
)
def test_parts_that_do_not_fit_together_are_refused(readings, changes):
    with pytest.raises(ImageToPromptError):
        replace(readings, **changes)


def test_a_reading_holds_only_what_its_file_will(readings):
    reading = readings.readings["a.eos"]
    with pytest.raises(ImageToPromptError, match="float16"):
        replace(reading, matrix=reading.matrix + 1e-6)
    with pytest.raises(ImageToPromptError):
        replace(reading, spread=0.0)
