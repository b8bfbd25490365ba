"""The spherical mean against laws and references of its own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from image_to_prompt.projection import ImageToPromptError, spherical_mean
from image_to_prompt.tests.fixtures.builders import generator, normal

NORM = 27.5


def on_sphere(rows: Tensor) -> Tensor:
    return NORM * rows / rows.norm(dim=-1, keepdim=True)


def pictures(count: int, width: int = 24, spread: float = 0.7, seed: int = 0) -> Tensor:
    """Embeddings around a common direction, as those of real pictures are."""
    return on_sphere(normal(1, width, seed=seed) + spread * normal(count, width, seed=seed + 1))


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point at share t of the great circle from a to b, by its closed formula."""
    a, b = a.double() / a.double().norm(), b.double() / b.double().norm()
    angle = torch.acos((a * b).sum())
    return NORM * (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def logarithm(mean: Tensor, point: Tensor) -> Tensor:
    """By acos and projection, for points that are not very near."""
    mean, point = mean.double() / mean.double().norm(), point.double() / point.double().norm()
    cosine = (mean * point).sum()
    side = point - cosine * mean
    return torch.acos(cosine.clamp(-1, 1)) * side / side.norm()


@pytest.mark.parametrize("copies", range(1, 11))
def test_copies_of_one_picture_give_that_picture_bit_for_bit(copies):
    one = pictures(1)
    assert torch.equal(spherical_mean(one.repeat(copies, 1)), one)
    weights = torch.rand(copies, generator=generator(copies)).add(0.01).tolist()
    assert torch.equal(spherical_mean(one.repeat(copies, 1), weights), one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_precision_of_the_embeddings_is_kept(dtype):
    assert spherical_mean(pictures(1).to(dtype)).dtype == dtype
    assert spherical_mean(pictures(3).to(dtype)).dtype == dtype


def test_the_order_of_pictures_does_not_matter_bit_for_bit():
    rows, weights = pictures(4), [0.1, 1.0, 0.7, 3.3]
    results = [
        spherical_mean(rows[list(order)], [weights[i] for i in order])
        for order in itertools.permutations(range(4))
    ]
    assert all(torch.equal(result, results[0]) for result in results)


def test_the_order_does_not_matter_with_copies_among_the_pictures():
    rows = pictures(3)[[0, 1, 0, 2, 0, 1]]
    weights = [0.1, 0.2, 0.3, 0.4, 1e-9, 1e9]
    results = []
    for seed in range(20):
        order = torch.randperm(6, generator=generator(seed)).tolist()
        results.append(spherical_mean(rows[order], [weights[i] for i in order]))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_copy_counts_as_its_weight():
    rows = pictures(2)
    twice = spherical_mean(rows[[0, 0, 1]])
    assert torch.equal(twice, spherical_mean(rows, [2.0, 1.0]))


@pytest.mark.parametrize("scale", [0.5, 3.0, 1e-6, 1e6])
def test_only_the_ratios_of_weights_matter(scale):
    rows, weights = pictures(3), [1.0, 0.25, 2.0]
    scaled = spherical_mean(rows, [scale * w for w in weights])
    assert torch.allclose(scaled, spherical_mean(rows, weights), atol=1e-5)


def test_no_weights_are_equal_weights():
    rows = pictures(5)
    assert torch.equal(spherical_mean(rows), spherical_mean(rows, [1.0] * 5))


@pytest.mark.parametrize("left_out", range(3))
def test_weight_0_leaves_a_picture_out(left_out):
    rows = pictures(3)
    weights = [0.0 if i == left_out else 1.0 + i for i in range(3)]
    rest = [i for i in range(3) if i != left_out]
    wanted = spherical_mean(rows[rest], [1.0 + i for i in rest])
    assert torch.equal(spherical_mean(rows, weights), wanted)


def test_one_picture_with_all_the_weight_is_that_picture_bit_for_bit():
    rows = pictures(3)
    assert torch.equal(spherical_mean(rows, [0, 2.0, 0]), rows[1:2])


def test_a_growing_share_leads_to_that_picture():
    rows = pictures(3)
    gaps = [
        float((spherical_mean(rows, [1, share, 1]) - rows[1]).norm()) for share in (1, 10, 1e3, 1e8)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-4


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.8])
def test_two_pictures_meet_on_the_great_circle_between_them(share):
    rows = pictures(2)
    mean = spherical_mean(rows, [1 - share, share])
    assert torch.allclose(mean[0].double(), slerp(rows[0], rows[1], share), atol=1e-5)


@pytest.mark.parametrize("degrees", [1e-4, 60.0, 120.0, 170.0])
def test_two_pictures_at_any_angle_meet_in_the_middle(degrees):
    angle = math.radians(degrees)
    rows = torch.zeros(2, 8, dtype=torch.float64)
    rows[0, 0], rows[1, 0], rows[1, 1] = NORM, NORM * math.cos(angle), NORM * math.sin(angle)
    mean = spherical_mean(rows)[0]
    wanted = NORM * torch.tensor([math.cos(angle / 2), math.sin(angle / 2)], dtype=torch.float64)
    assert torch.allclose(mean[:2], wanted, atol=1e-9)
    assert float(mean[2:].abs().max()) == 0.0


@pytest.mark.parametrize("count", [3, 5, 20])
@pytest.mark.parametrize("spread", [0.05, 0.7, 1.5])
def test_the_weighted_angles_to_all_pictures_balance(count, spread):
    rows = pictures(count, spread=spread, seed=count).double()
    weights = torch.rand(count, generator=generator(1)).add(0.1).tolist()
    mean = spherical_mean(rows, weights)[0]
    pull = sum(w * logarithm(mean, row) for w, row in zip(weights, rows, strict=True))
    assert float(pull.norm()) / sum(weights) < 1e-6


@pytest.mark.parametrize("spread", [0.3, 1.2])
def test_no_nearby_point_has_smaller_squared_angles(spread):
    rows = pictures(6, spread=spread, seed=4).double()
    mean = spherical_mean(rows)[0]

    def cost(point):
        unit = point / point.norm()
        return float(((rows @ unit) / NORM).clamp(-1, 1).acos().square().sum())

    for seed in range(30):
        moved = mean + 0.05 * NORM * normal(24, seed=seed).double() / 5
        assert cost(mean) < cost(moved)


def test_the_straight_average_is_another_point():
    """Unequal angles: the mean on the sphere is not the average pushed out to it."""
    rows = pictures(3, spread=1.5).double()
    straight = on_sphere(rows.mean(0, keepdim=True))
    assert float((spherical_mean(rows) - straight).norm()) > 1e-3


@pytest.mark.parametrize("count", [2, 3, 50])
@pytest.mark.parametrize("norm", [1.0, 27.5, 1e4])
def test_the_mean_lies_on_the_sphere(count, norm):
    mean = spherical_mean(pictures(count) / NORM * norm)
    assert mean.shape == (1, 24)
    assert float(mean.double().norm()) == pytest.approx(norm, rel=1e-5)


def test_turning_all_pictures_turns_their_mean():
    turn, _ = torch.linalg.qr(normal(24, 24, seed=6).double())
    rows = pictures(4).double()
    assert torch.allclose(spherical_mean(rows @ turn), spherical_mean(rows) @ turn, atol=1e-8)


def test_combining_changes_neither_pictures_nor_weights():
    rows, weights = pictures(4), [1.0, 0.0, 2.0, 0.5]
    before = rows.clone(), list(weights)
    spherical_mean(rows, weights)
    assert torch.equal(rows, before[0])
    assert weights == before[1]


def test_nearly_equal_pictures_do_not_divide_by_zero():
    one = pictures(1).double()
    rows = torch.cat([one, one + 1e-9, one - 1e-12])
    assert torch.allclose(spherical_mean(rows), one, atol=1e-8)


def test_opposite_pictures_have_no_mean():
    one = pictures(1)
    with pytest.raises(ImageToPromptError, match="opposite directions"):
        spherical_mean(torch.cat([one, -one]))
    corners = on_sphere(torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]))
    with pytest.raises(ImageToPromptError, match="one prompt per image"):
        spherical_mean(corners)


@pytest.mark.parametrize(
    "weights",
    [[1.0], [1.0] * 3, [], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]],
)
def test_unfit_weights_are_named_and_so_is_what_fits(weights):
    with pytest.raises(ImageToPromptError, match="2 finite weights >= 0, one per image") as caught:
        spherical_mean(pictures(2), weights)
    assert caught.value.subject == "image weights"
