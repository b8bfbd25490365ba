"""The limits that the centred form holds on real pictures and EOS states, where they are at hand.

The rest of the table is printed by `make geometry`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import CaptionStatistics, Projection, text_projection_of
from image_to_prompt.tests.fixtures.builders import REAL_PROJECTIONS
from image_to_prompt.tests.geometry.data import GEOMETRY, load, offsets
from image_to_prompt.tests.geometry.forms import Forms
from image_to_prompt.tests.geometry.scores import score

pytestmark = pytest.mark.skipif(
    not (GEOMETRY.is_file() and REAL_PROJECTIONS.is_file()),
    reason="the real ViT-L/14 data are not at ../shared/data",
)


@pytest.fixture(scope="module")
def world():
    return load()


@pytest.fixture(scope="module")
def forms(world):
    return Forms.of(world)


@pytest.fixture(scope="module")
def from_visual(world, forms):
    return score(world, forms.from_visual())


@pytest.fixture(scope="module")
def from_pictures(world, forms):
    return score(world, forms.from_pictures()[:12])


def test_without_pictures_classes_are_told_apart_and_results_are_not_all_alike(from_visual):
    assert from_visual.top1 >= 0.73
    assert from_visual.among <= 0.61


def test_with_16_pictures_results_resemble_each_other_as_eos_states_do(from_pictures):
    assert from_pictures.top1 >= 0.77
    assert 0.36 <= from_pictures.other <= 0.56
    assert 0.36 <= from_pictures.among <= 0.56


def test_a_photo_finds_its_own_concept(from_visual, from_pictures):
    assert from_visual.identity >= 0.98
    assert from_pictures.identity >= 0.98


def test_the_offset_alone_has_the_cosines_but_tells_nothing_apart(world):
    control = score(world, [lambda v, offset, spread: offset.clone()])
    assert control.other > 0.6
    assert control.top1 < 0.2
    assert control.deviations == 0


def test_every_result_has_the_mean_length_of_eos_states(world, from_visual):
    assert from_visual.length == pytest.approx(float(world.classes.norm(dim=-1).mean()), abs=0.1)


def test_sd_ipc_lies_nearly_orthogonal_to_eos_states(world, forms):
    paper = score(world, [forms.plain("pseudo-inverse")])
    assert paper.other < 0.06
    assert paper.to_offset < 0.15


def test_gap_0_is_sd_ipc_bit_for_bit(world, forms):
    offset, spread = (part[:1].expand_as(part) for part in offsets(world))
    closed = forms.plain("pseudo-inverse")(world.photos, offset, spread)
    [form] = forms.from_visual(gap=0.0)
    assert torch.equal(form(world.photos, offset, spread), closed)


def test_eos_states_of_one_kind_are_told_from_broad_ones(world):
    broad = CaptionStatistics.of(world.classes)
    assert (round(broad.among, 2), round(broad.ratio, 2)) == (0.46, 0.68)
    assert not broad.warnings()
    furniture = CaptionStatistics.of(torch.cat([world.others, world.others[:5]]))
    assert any("alike" in warning for warning in furniture.warnings())


def test_what_the_inverse_has_cut_of_the_text_projection_hardly_matters(world, forms):
    """A saved projection knows W_t only up to the directions it has cut."""
    closed: Projection = forms.closed
    own = replace(world, text=text_projection_of(closed).double())
    row = score(world, Forms(own, closed).from_visual())
    assert row.top1 >= 0.73
    assert row.among <= 0.61
