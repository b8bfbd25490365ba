"""Assembly, editing and strength: which slots change, by how much, and which never do."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    BLENDS,
    PAPER_TEXT_WEIGHT,
    apply_strength,
    assemble,
    condition,
    edit,
    edit_at_norm,
    first_eos,
    has_words,
    image_slots,
)
from image_to_prompt.tests.fixtures.builders import normal

WIDTH = 12
EOS, SOS = 49407, 49406


def embeddings(count=2):
    rows = normal(count, WIDTH, seed=1)
    return 27.5 * rows / rows.norm(dim=-1, keepdim=True)


def states(chunks=1, seed=2):
    """Encoded text (1, 77 n, D); every chunk starts with the same SOS state."""
    text = normal(1, 77 * chunks, WIDTH, seed=seed)
    text[:, ::77] = normal(WIDTH, seed=99)
    return text


CASES = [(1, [1]), (1, [4]), (1, [76]), (2, [76, 20]), (3, [70, 76, 2])]


# --- assembly ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [77, 154, 2])
def test_a_picture_alone_is_the_start_state_and_then_its_embedding_in_every_slot(length):
    sos, e = normal(WIDTH, seed=3), embeddings(3)
    conditioning = assemble(sos, e, length)
    assert conditioning.shape == (3, length, WIDTH)
    for row, embedding in zip(conditioning, e, strict=True):
        assert torch.equal(row[0], sos)
        assert all(torch.equal(slot, embedding) for slot in row[1:])


def test_assembled_conditioning_has_77_slots_by_default():
    assert assemble(normal(WIDTH), embeddings()).shape == (2, 77, WIDTH)


def test_an_assembled_row_is_its_picture_alone():
    e = embeddings(4)
    batch = assemble(normal(WIDTH), e)
    for index in range(4):
        assert torch.equal(batch[index : index + 1], assemble(normal(WIDTH), e[index : index + 1]))


# --- editing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", sorted(BLENDS))
@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_start_states_and_words_stay_untouched_bit_for_bit(chunks, eos, blend):
    text, e = states(chunks), embeddings(3)
    conditioning = BLENDS[blend](text, eos, e, 0.6)
    assert conditioning.shape == (3, 77 * chunks, WIDTH)
    for chunk, k in enumerate(eos):
        words = slice(77 * chunk, 77 * chunk + k)
        for row in conditioning:
            assert torch.equal(row[words], text[0, words])


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6, 1.0, 10.0])
@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_from_the_first_eos_on_the_text_is_added_to_the_picture(chunks, eos, weight):
    text, e = states(chunks), embeddings(2)
    conditioning = edit(text, eos, e, weight)
    for row, embedding in zip(conditioning, e, strict=True):
        for chunk, k in enumerate(eos):
            for slot in range(77 * chunk + k, 77 * chunk + 77):
                assert torch.equal(row[slot], embedding + weight * text[0, slot])


@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_the_second_mode_keeps_the_direction_of_the_sum_and_the_length_of_the_picture(chunks, eos):
    text, e = states(chunks), embeddings(2)
    slots = image_slots(eos, text)
    kept = edit_at_norm(text, eos, e, 0.6)[:, slots]
    summed = edit(text, eos, e, 0.6)[:, slots]
    assert torch.allclose(kept.norm(dim=-1), torch.tensor(27.5))
    assert torch.allclose(
        torch.cosine_similarity(kept, summed, dim=-1), torch.tensor(1.0), atol=1e-5
    )


def test_the_sum_is_not_rescaled_in_the_paper_mode():
    text, e = 5 * states(), embeddings(1)
    lengths = edit(text, [4], e, 1.0)[0, 4:].norm(dim=-1)
    assert lengths.std() > 0.1


@pytest.mark.parametrize(("chunks", "eos"), CASES)
def test_a_zero_picture_at_weight_1_is_the_text_exactly(chunks, eos):
    text = states(chunks)
    assert torch.equal(edit(text, eos, torch.zeros(1, WIDTH), 1.0), text)


def test_without_text_weight_the_picture_fills_its_slots_alone():
    text, e = states(), embeddings(1)
    conditioning = edit(text, [5], e, 0.0)
    assert torch.equal(conditioning[0, 5:], e.expand(72, -1))


def test_an_eos_at_the_last_slot_leaves_one_slot_to_the_picture():
    text, e = states(), embeddings(1)
    changed = (edit(text, [76], e, 0.6) != text).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [76]


def test_every_chunk_has_its_own_start_words_and_end():
    slots = image_slots([70, 76, 2], states(3))
    taken = [*range(70, 77), 77 + 76, *range(154 + 2, 231)]
    assert slots.nonzero().flatten().tolist() == taken


# --- with or without words --------------------------------------------------------------------


@pytest.mark.parametrize("blend", sorted(BLENDS))
@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0, 10.0])
def test_an_empty_text_is_the_picture_alone_whatever_the_text_weight(weight, blend):
    text, e = states(), embeddings(2)
    conditioning = condition(text, [1], e, weight, blend)
    assert torch.equal(conditioning, assemble(text[0, 0], e))


@pytest.mark.parametrize("blend", sorted(BLENDS))
def test_a_text_with_words_is_an_edit(blend):
    text, e = states(2), embeddings(2)
    conditioning = condition(text, [76, 9], e, 0.4, blend)
    assert torch.equal(conditioning, BLENDS[blend](text, [76, 9], e, 0.4))


def test_the_paper_weight_and_sum_are_the_default():
    text, e = states(), embeddings(2)
    assert PAPER_TEXT_WEIGHT == 0.6
    assert torch.equal(condition(text, [3], e), edit(text, [3], e, 0.6))


@pytest.mark.parametrize(
    ("eos", "words"), [([1], False), ([2], True), ([76], True), ([76, 1], True)]
)
def test_a_text_has_words_unless_its_only_chunk_ends_at_once(eos, words):
    assert has_words(eos) is words


@pytest.mark.parametrize(
    ("ids", "eos"),
    [
        ([SOS, EOS], 1),
        ([SOS, *[EOS] * 76], 1),
        ([SOS, 320, 1125, EOS, EOS, EOS], 3),
        ([SOS, *[320] * 75, EOS], 76),
        ([EOS, 320, EOS], 2),
        ([SOS, -1, EOS], 2),
        (tuple([SOS, 320, EOS]), 2),
    ],
)
def test_the_first_eos_after_the_start_is_found(ids, eos):
    assert first_eos(ids) == eos


def test_another_tokenizer_may_have_another_eos():
    assert first_eos([0, 5, 2, 2], eos_id=2) == 2


# --- strength ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 2])
def test_strength_1_is_the_conditioning_bit_for_bit(chunks):
    conditioning, null = normal(3, 77 * chunks, WIDTH), states(seed=8)
    assert torch.equal(apply_strength(conditioning, null, 1.0), conditioning)


@pytest.mark.parametrize("chunks", [1, 2])
def test_strength_0_is_the_empty_prompt_bit_for_bit(chunks):
    null = states(seed=8)
    result = apply_strength(normal(3, 77 * chunks, WIDTH), null, 0.0)
    assert torch.equal(result, null.expand(3, -1, -1))


@pytest.mark.parametrize("strength", [-10.0, -1.0, 0.05, 0.5, 0.95, 1.5, 10.0])
@pytest.mark.parametrize("chunks", [1, 2])
def test_strength_moves_every_slot_along_the_line_from_the_empty_prompt(chunks, strength):
    conditioning, null = normal(2, 77 * chunks, WIDTH), states(seed=8)
    result = apply_strength(conditioning, null, strength)
    assert result.shape == conditioning.shape
    for slot in range(77 * chunks):
        start = null[0, slot % 77]
        wanted = start + strength * (conditioning[:, slot] - start)
        assert torch.equal(result[:, slot], wanted)


def test_strength_is_linear_between_its_ends():
    conditioning, null = normal(1, 77, WIDTH).double(), states(seed=8).double()
    at = {s: apply_strength(conditioning, null, s) for s in (0.0, 0.25, 0.75, 1.0)}
    assert torch.allclose(at[0.25] + at[0.75], at[0.0] + at[1.0])
    assert torch.allclose(at[0.75] - at[0.25], 0.5 * (at[1.0] - at[0.0]))


# --- inputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("blend", sorted(BLENDS))
@pytest.mark.parametrize("eos", [[1], [7]])
def test_nothing_changes_its_inputs(eos, blend, strength):
    text, null, e = states(), states(seed=8), embeddings(2)
    copies = [tensor.clone() for tensor in (text, null, e)]
    conditioning = condition(text, eos, e, 0.6, blend)
    before = conditioning.clone()
    apply_strength(conditioning, null, strength)
    assert torch.equal(conditioning, before)
    assert all(torch.equal(a, b) for a, b in zip((text, null, e), copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_precision_of_the_embeddings_is_kept(dtype):
    sos, e = normal(WIDTH), embeddings(2).to(dtype)
    assert assemble(sos, e).dtype == dtype
    assert condition(states().to(dtype), [3], e).dtype == dtype
