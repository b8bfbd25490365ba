"""Great circles between key pictures."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.projection.prompt.travel import MAX_FRAMES, great_circle, travel


def keys(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 27.5 * normalize(torch.randn(count, 64, generator=generator), dim=-1)


def test_at_key_frames_the_keys_stand_bit_for_bit():
    embeddings = keys(3)
    rows = travel(embeddings, [0, 24, 48])
    assert rows.shape == (49, 64)
    assert torch.equal(rows[[0, 24, 48]], embeddings)


def test_before_the_first_key_frame_the_first_key_holds():
    embeddings = keys(2)
    rows = travel(embeddings, [5, 7])
    assert torch.equal(rows[:6], embeddings[:1].expand(6, -1)) and len(rows) == 8
    assert torch.equal(travel(embeddings[:1], [3]), embeddings[:1].expand(4, -1))


@pytest.mark.parametrize("common", [None, 5.0])
def test_steps_are_even_angles_at_one_length_and_fade_steadily(common):
    centre = None if common is None else torch.full((64,), common / 8)
    offset = 0 if centre is None else centre
    embeddings = keys(2) + offset
    rows = travel(embeddings, [0, 10], centre).double() - offset
    assert torch.allclose(rows.norm(dim=-1), torch.tensor(27.5).double(), atol=1e-4)
    cosines = (normalize(rows[:-1], dim=-1) * normalize(rows[1:], dim=-1)).sum(dim=-1)
    angles = cosines.clamp(-1, 1).acos()
    assert torch.allclose(angles, angles.mean().expand_as(angles), atol=1e-4)
    towards = rows @ rows[0]
    assert (towards.diff() < 0).all() and ((rows @ rows[-1]).diff() > 0).all()


def test_the_middle_is_the_spherical_mean():
    from image_to_prompt.projection import spherical_mean

    embeddings = keys(2, seed=3)
    assert torch.allclose(travel(embeddings, [0, 2])[1:2], spherical_mean(embeddings), atol=1e-4)


def test_tiny_and_no_angles_are_exact():
    start = torch.tensor([1.0, 0.0]).double()
    assert torch.equal(great_circle(start, start, 0.3), start)
    end = torch.tensor([math.cos(1e-9), math.sin(1e-9)]).double()
    assert great_circle(start, end, 0.5)[1] == pytest.approx(5e-10, rel=1e-6)


@pytest.mark.parametrize(
    "frames", [[0, 0], [24, 0], [-1, 4], [0], [0, 1, 2], [], [0, MAX_FRAMES], [0, 10**400]]
)
def test_key_frames_out_of_order_are_refused(frames):
    with pytest.raises(ImageToPromptError, match="key frames") as raised:
        travel(keys(2), frames)
    assert raised.value.subject == "frames" and len(str(raised.value)) < 1000


def test_opposite_pictures_have_no_way_between_them():
    one = keys(1)
    with pytest.raises(ImageToPromptError, match="opposite"):
        travel(torch.cat([one, -one]), [0, 4])
    with pytest.raises(ImageToPromptError, match="differ from the common part"):
        travel(torch.cat([one, 2 * one]), [0, 4], one[0])
