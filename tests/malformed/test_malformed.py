"""Every malformed case that needs no host: its clear error, and nothing broken after it.

The cases are data, in the modules beside this one; those for nodes run in tests/host.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import load_file
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed import calls, files, saved
from image_to_prompt.tests.malformed.case import check

CASES = [*files.CASES, *saved.CASES, *calls.CASES]
EMBEDS = builders.normal(2, 32, seed=1)


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "clip.safetensors"
    return builders.write(path, builders.transformers_clip())


@pytest.fixture(scope="module")
def expected(good_file):
    return load_file(good_file).apply(EMBEDS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_malformed_input_is_explained_and_harms_nothing(case, tmp_path, good_file, expected):
    check(case, tmp_path)
    assert torch.equal(load_file(good_file).apply(EMBEDS), expected)


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_there_are_at_least_200_cases_without_a_host():
    assert len(CASES) >= 200
