"""Concepts against laws of their own, on embeddings that are built with known parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    CONCEPTS,
    Concept,
    ImageToPromptError,
    only,
    swap,
    without,
    words_of,
)
from image_to_prompt.tests.fixtures.builders import normal

WIDTH, HUES, KINDS = 48, 6, 5
BASIS = torch.linalg.qr(normal(WIDTH, WIDTH, seed=3))[0].T
HUE, KIND, COMMON = BASIS[:HUES], BASIS[HUES : HUES + KINDS], BASIS[-1]
WORDS = normalize(HUE + 2 * COMMON + 0.01 * normal(HUES, WIDTH, seed=4), dim=-1)


def picture(hue: int, kind: int) -> torch.Tensor:
    """An image embedding (1, J) of a hue, a kind, and what all pictures share; of any length."""
    return 3 * (HUE[hue] + KIND[kind] + 4 * COMMON)[None]


def parts(x: torch.Tensor) -> tuple[int, int]:
    return int((x @ HUE.T).argmax()), int((x @ KIND.T).argmax())


def test_the_filter_is_that_of_ridge_regression_on_the_words():
    concept = Concept.of(WORDS)
    x = (WORDS - WORDS.mean(dim=0)).double()
    c = x.T @ x / len(x)
    ridge = 0.1 * (c @ c).trace() / c.trace()
    wanted = c @ torch.linalg.inv(c + ridge * torch.eye(WIDTH, dtype=torch.float64))
    v = normal(4, WIDTH, seed=5)
    assert torch.allclose(concept.part(v).double(), v.double() @ wanted, atol=1e-5)
    assert torch.allclose(
        concept.whole_part(v).double(), v.double() @ (2 * wanted - wanted @ wanted), atol=1e-5
    )
    assert concept.rank == HUES - 1  # the mean of the words takes one direction away


def test_lengths_of_words_and_their_order_do_not_matter():
    v = normal(3, WIDTH, seed=6)
    again = Concept.of(WORDS.flip(0) * torch.arange(1, HUES + 1)[:, None])
    assert torch.allclose(Concept.of(WORDS).part(v), again.part(v), atol=1e-5)


def test_swap_takes_the_concept_and_leaves_the_rest():
    concept = Concept.of(WORDS)
    assert parts(swap(picture(1, 2), picture(4, 3), concept)) == (4, 2)
    assert parts(swap(picture(1, 2), picture(4, 3), concept, 0.2)) == (1, 2)


def test_swap_with_itself_changes_only_the_length():
    x = picture(1, 2)
    assert torch.allclose(swap(x, x, Concept.of(WORDS)), normalize(x, dim=-1), atol=1e-6)


def test_without_leaves_no_concept_and_only_leaves_nothing_else():
    concept, x = Concept.of(WORDS), picture(1, 2)
    left = without(x, concept, direction=COMMON)
    assert parts(left)[1] == 2
    spread = (left @ HUE.T).flatten()
    # What is left is the average of the words, which no direction of a concept can tell.
    assert float(spread.max() - spread.min()) < 0.05 * float((normalize(x, dim=-1) @ HUE.T).max())
    alone = only(x, concept, direction=COMMON)
    assert parts(alone)[0] == 1
    assert float((alone @ KIND.T).abs().max()) < 0.02
    assert torch.allclose(alone @ COMMON, normalize(x, dim=-1) @ COMMON, atol=0.02)


def test_only_and_without_share_the_picture_between_them():
    """At full filters x = only + without - m; here up to what the filter leaves."""
    concept, x = Concept.of(WORDS), picture(1, 2)
    unit = normalize(x, dim=-1)
    mean = (unit @ COMMON)[:, None] * COMMON
    both = only(x, concept, direction=COMMON) + without(x, concept, direction=COMMON) - mean
    assert float((both - unit).norm()) < 0.1


def test_amount_zero_gives_the_picture_bit_for_bit():
    concept, x = Concept.of(WORDS), picture(1, 2)
    assert swap(x, picture(4, 3), concept, 0.0) is x
    assert only(x, concept, 0.0) is x and without(x, concept, 0.0) is x


def test_one_other_picture_serves_all():
    concept = Concept.of(WORDS)
    batch = torch.cat([picture(1, 2), picture(2, 3)])
    mixed = swap(batch, picture(4, 0), concept)
    assert [parts(row[None]) for row in mixed] == [(4, 2), (4, 3)]


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_amounts_outside_0_to_1_are_refused(amount):
    with pytest.raises(ImageToPromptError, match="amount"):
        swap(picture(1, 2), picture(4, 3), Concept.of(WORDS), amount)


@pytest.mark.parametrize(
    "words",
    [WORDS[:2], WORDS[:1].expand(4, -1), WORDS * float("nan"), WORDS * 0, WORDS[0], WORDS.long()],
)
def test_unfit_words_are_refused(words):
    with pytest.raises(ImageToPromptError) as caught:
        Concept.of(words)
    assert caught.value.subject == "concept words"


def test_other_numbers_of_pictures_and_other_widths_are_refused():
    concept, x = Concept.of(WORDS), picture(1, 2)
    with pytest.raises(ImageToPromptError, match="1 or 3 other images"):
        swap(x.expand(3, -1), x.expand(2, -1), concept)
    with pytest.raises(ImageToPromptError, match="of the concept's CLIP"):
        only(normal(1, WIDTH + 1), concept)


def test_words_of_ones_own_are_phrases_between_commas_and_line_ends():
    assert words_of(" oak, silver birch\npine,,oak\n") == ("oak", "silver birch", "pine")
    with pytest.raises(ImageToPromptError, match="at least 3 different words"):
        words_of("oak, oak, pine")


def test_the_built_in_lists_are_broad_and_repeat_nothing():
    for name, words in CONCEPTS.items():
        assert len(words) == len(set(words)) >= 50, name


def test_the_mean_picture_stays_as_it_is():
    direction, centre = torch.zeros(8), torch.zeros(8)
    direction[0], centre[1] = 1.0, 0.6
    mean = (0.8 * direction + centre)[None]  # of length 1
    words = Concept.of(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)))
    for change in (only, without):
        assert torch.allclose(change(mean, words, 1.0, direction, centre), mean, atol=1e-6)
        assert not torch.allclose(change(mean, words, 1.0, direction), mean, atol=1e-2)
