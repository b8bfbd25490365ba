"""Statistics of captions' EOS states, and what is said about captions of one kind."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from image_to_prompt.projection import CaptionStatistics, ImageToPromptError
from image_to_prompt.tests.fixtures.builders import normal


def states(common: float = 3.8, count: int = 60, width: int = 16):
    """Deviations of length 4 on average around a state of this length."""
    return normal(count, width, seed=4) + common * torch.nn.functional.normalize(
        normal(1, width, seed=5), dim=-1
    )


def test_offset_and_spread_are_the_mean_and_the_mean_distance_from_it():
    h = states().double()
    found = CaptionStatistics.of(h.float())
    offset = sum(h) / len(h)
    assert torch.allclose(found.offset.double(), offset, atol=1e-6)
    assert found.spread == pytest.approx(
        sum(float((row - offset).norm()) for row in h) / len(h), rel=1e-6
    )
    assert found.count == 60
    lengths = sum(float(row.norm()) for row in h) / len(h)
    assert found.ratio == pytest.approx(float(offset.norm()) / lengths, rel=1e-5)


def test_among_is_the_mean_cosine_of_different_captions():
    h = states(count=33).double()
    pairs = [
        float(cosine_similarity(h[i], h[j], dim=0)) for i in range(33) for j in range(33) if i != j
    ]
    found = CaptionStatistics.of(h.float())
    assert found.among == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_the_order_of_captions_does_not_matter():
    h = states()
    one, other = CaptionStatistics.of(h), CaptionStatistics.of(h.flip(0))
    assert torch.allclose(one.offset, other.offset, atol=1e-6)
    assert one.spread == pytest.approx(other.spread)


def test_broad_captions_are_not_warned_about():
    assert CaptionStatistics.of(states()).warnings() == []


def test_captions_that_are_alike_are_warned_about():
    [warning] = CaptionStatistics.of(states(common=5.5)).warnings()
    assert "alike" in warning


def test_an_offset_of_an_unusual_share_is_warned_about():
    [warning] = CaptionStatistics.of(states(common=1.0)).warnings()
    assert "0.68" in warning


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (states(count=31), "at least 32"),
        (states()[0], "at least 32"),
        (states().fill_(2.0), "all the same"),
        (states() * float("nan"), "finite"),
        (states() * 0, "finite"),
    ],
)
def test_unfit_captions_are_refused(given, message):
    with pytest.raises(ImageToPromptError, match=message) as caught:
        CaptionStatistics.of(given)
    assert caught.value.subject == "captions"
