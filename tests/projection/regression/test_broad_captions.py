"""Broad captions: half from the phrase generator, half with words of a vocabulary."""

from __future__ import annotations

import pytest

from image_to_prompt.projection import (
    ImageToPromptError,
    broad_captions,
    captions,
    vocabulary_words,
)

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def test_there_are_as_many_different_ones_as_asked_for():
    for count in (1, 32, 300):
        found = broad_captions(count, words=WORDS)
        assert len(set(found)) == len(found) == count


def test_half_of_them_hold_words_of_the_vocabulary():
    found = broad_captions(300, words=WORDS)
    filled = [caption for caption in found if "word" in caption]
    assert len(filled) == 150
    assert found[:150] == captions(150)
    assert all(any(word in caption for caption in filled) for word in WORDS)


def test_the_same_arguments_give_the_same_captions_and_seeds_others():
    assert broad_captions(64, 3, WORDS) == broad_captions(64, 3, WORDS)
    assert broad_captions(64, 3, WORDS) != broad_captions(64, 4, WORDS)


def test_without_a_vocabulary_all_come_from_the_phrase_generator():
    assert broad_captions(40) == captions(40)


def test_a_vocabulary_of_too_few_words_is_refused():
    with pytest.raises(ImageToPromptError, match="1 words"):
        broad_captions(1000, words=["one"])


def test_words_of_a_vocabulary_are_whole_and_in_order():
    tokens = [
        "the</w>",
        "ing",
        "of</w>",
        "!</w>",
        "cat</w>",
        "12345</w>",
        "caf\u00e9</w>",
        "dog</w>",
    ]
    assert vocabulary_words(tokens) == ["the", "cat", "dog"]
    assert vocabulary_words(tokens, most=2) == ["the", "cat"]
