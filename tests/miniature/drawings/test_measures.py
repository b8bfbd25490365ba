"""Tables of the evaluation: medians, paired differences, edits at equal takes."""

from __future__ import annotations

import pytest
import torch

from .editing import changed, equal_takes, stays_at
from .measures import difference, joined, median
from .world import PALETTE, THINGS, Scenes


def test_a_row_does_not_differ_from_itself_and_a_better_one_does():
    row = torch.arange(40) % 2 == 0
    assert difference(row, row) == {"value": 0.0, "low": 0.0, "high": 0.0}
    better = difference(row | (torch.arange(40) < 20), row)
    assert better["value"] == pytest.approx(0.25)
    assert 0 < better["low"] < better["value"] < better["high"]


def test_the_median_lies_in_its_interval():
    found = median(torch.arange(101.0))
    assert found["value"] == 50
    assert 30 < found["low"] < 50 < found["high"] < 70


def test_outcomes_are_joined_in_order():
    parts = [{"thing": torch.tensor([True])}, {"thing": torch.tensor([False, True])}]
    assert joined(parts)["thing"].tolist() == [True, False, True]


def test_what_stays_is_read_between_two_weights():
    curve = [(0.2, 0.9), (0.6, 0.7), (0.8, 0.1)]
    assert stays_at(curve, 0.4) == pytest.approx(0.8)
    assert stays_at(curve, 0.1) == pytest.approx(0.9)
    assert stays_at(curve, 0.8) == pytest.approx(0.1)


def curve(takes: list[float], stays: list[float], count: int = 100) -> dict:
    """Outcomes of `count` pictures by weight whose shares are these, the first ones right."""
    first = torch.arange(count)
    points = zip(takes, stays, strict=True)
    return {w: {"takes": first < count * t, "stays": first < count * s} for w, (t, s) in
            enumerate(points)}  # fmt: skip


def test_forms_are_compared_at_the_takes_that_all_of_them_reach():
    curves = {
        "paper": curve([0.0, 0.5], [1.0, 0.5]),
        "as good": curve([0.0, 0.5], [1.0, 0.5]),
        "better": curve([0.0, 0.6], [1.0, 0.9]),
    }
    found = equal_takes(curves)
    assert found["level"] == pytest.approx(0.5)
    assert found["stays"]["paper"] == pytest.approx(0.5)
    assert found["apart"]["as good"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    better = found["apart"]["better"]
    assert better["value"] == pytest.approx(1 - 0.1 * 5 / 6 - 0.5)
    assert 0.2 < better["low"] < better["value"] < better["high"] < 0.7


def test_another_thing_is_never_the_pictures_own():
    count = len(THINGS)
    zero = torch.zeros(count)
    thing, ground = torch.arange(count), torch.zeros(count, dtype=torch.long)
    scenes = Scenes(thing, ground, ground, PALETTE[ground], zero, zero, zero, zero, zero)
    for first in range(4):
        texts, target = changed(scenes, "thing", first)
        assert not (target.thing == thing).any()
        assert texts == [f"a {THINGS[i]}" for i in target.thing.tolist()]
        assert torch.equal(target.ground, ground)
