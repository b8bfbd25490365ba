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


# Not right yet. Each is strict: the test fails as soon as its case is explained as it should be.
_NUMBERS = "storage._projection lets ValueError and OverflowError of float() and int() through"
_GUARD = "guards.quarter_circle_distance knows the law of square matrices of zero mean only"
KNOWN = {
    **{f"saved: {key} is a word": _NUMBERS for key in ("cutoff", "kept", "norm")},
    **{f"saved: kept is {text}": _NUMBERS for text in ("NaN", "Infinity", "1e999")},
    "saved: a bias that is announced and not there": "storage._projection drops it in silence",
    "call: a ridge wider than numbers go": "inverse._gain_ridge overflows in cutoff**2",
    "call: projection of eight-bit floats": "guards asks isfinite of a dtype that has none",
    "call: projection of noise that is not square": _GUARD,
    "call: projection of noise of one sign": _GUARD,
    "call: weights too large to add": "combine: math.fsum overflows",
    "call: pictures of NaN": "combine does not check its rows",
    "call: a picture of zeros": "combine does not check its rows",
    "call: opposite pictures of other weights": "combine: the logarithm of an antipode is noise",
    "call: the blend 'mix'": "prompt.condition: KeyError",
    "call: an edit of texts 1 wide": "prompt.edit checks no widths, and broadcasts",
    "call: an edit of texts 33 wide": "prompt.edit checks no widths",
}
for _name in KNOWN.keys() - {case.name for case in CASES}:
    raise AssertionError(f"no case is called {_name!r}")


def _parameters(cases):
    for case in cases:
        bug = KNOWN.get(case.name)
        marks = [pytest.mark.xfail(strict=True, reason=bug)] if bug else []
        yield pytest.param(case, marks=marks, id=case.name)


@pytest.mark.parametrize("case", _parameters(CASES))
def test_a_malformed_input_is_explained_and_harms_nothing(case, tmp_path, good_file, expected):
    check(case, tmp_path)
    assert torch.equal(load_file(good_file).apply(EMBEDS), expected)


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_there_are_at_least_200_cases_without_a_host():
    assert len(CASES) >= 200
