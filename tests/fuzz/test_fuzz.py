"""A sample of the generated inputs that need no host; `make fuzz` tries more."""

from __future__ import annotations

import time

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.tests.fuzz import judge as fuzz
from image_to_prompt.tests.fuzz.kinds import KINDS

SAMPLE, SEED = 1000, 1


def test_a_sample_of_generated_inputs_is_refused_clearly_or_handled(tmp_path):
    report = fuzz.try_all(KINDS, SAMPLE, SEED, tmp_path)
    assert not report.bad, str(report)
    assert {kind for kind, _ in report.counts} == {kind.name for kind in KINDS}


def test_the_same_seed_tries_the_same_inputs(tmp_path):
    few = [kind for kind in KINDS if kind.name in ("filename prefix", "CLIP file")]
    first, again = (fuzz.try_all(few, 40, 5, tmp_path).counts for _ in range(2))
    assert first == again
    assert fuzz.try_all(few, 40, 6, tmp_path).counts != first


def ends(act, oracle=lambda _: None) -> str:
    return fuzz.judge(lambda: (act, oracle))[0]


def refuse(text: str):
    def act():
        error = ImageToPromptError("a", "b", "c")
        error.args, error.do = (text,), text
        raise error

    return act


def busy():
    while True:
        pass


def test_every_ending_is_told_from_the_others(monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 0.5)
    assert ends(lambda: 1) == "accepted"
    assert ends(refuse("Correct it.")) == "clear"
    assert ends(lambda: 1, lambda _: "wrong") == "silent"
    assert ends(lambda: [][0]) == "raw"
    assert ends(lambda: time.sleep(50)) == "hanging"
    monkeypatch.setattr(fuzz, "LIMIT", 0.05)
    monkeypatch.setattr(fuzz, "PATIENCE", 50)
    assert ends(busy) == "hanging"
