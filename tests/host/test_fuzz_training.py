"""Generated hostile values on the training nodes with small models behind them, in the real host.

Random weights: wiring only. FUZZ_TRAINING_N and FUZZ_SEED say how many and from which seed.
"""

from __future__ import annotations

import os
from random import Random

import pytest
import torch

from image_to_prompt.tests.fuzz import hostile
from image_to_prompt.tests.fuzz.judge import try_all
from image_to_prompt.tests.fuzz.kinds import Kind, whole
from image_to_prompt.tests.host.training_tools import (
    PRESET,
    QUICK,
    generator,
    leftovers,
    make_tools,
    predicted,
)

COUNT = int(os.environ.get("FUZZ_TRAINING_N", 60))
SEED = int(os.environ.get("FUZZ_SEED", 1))
pytestmark = pytest.mark.slow
PLAUSIBLE = {
    "learning_rate": (1e-4, 0.01, 1),
    "seed": (0, 77, 2**64 - 1),
    "crop": ("none",),
    "memory": ("low", "fast"),
    "preview_every": (1, 0),
    "size": (128,),
    "steps": (0, 2),
    "epochs": (0, 2),
    "held_out": (0.0, 0.5),
    "patience": (2,),
    "keep_texts": ("in the snow", "a dog\n\n(((", "x" * 5000, "\udc80"),
    "image": (torch.ones(1, 64, 72, 3), torch.full((4, 8, 300, 3), 0.5)),
    "regularization_image": (torch.zeros(2, 64, 64, 3),),
}
LENGTHS = ("steps", "epochs", "size", "patience")  # capped: a long training is no mistake
LONGEST = {"size": 128}


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


def good(tools) -> dict[str, dict]:
    """Inputs of both nodes with which they train."""
    common = {
        **tools.sockets(),
        **{"preset": PRESET, "learning_rate": 0.0, "seed": 1, "crop": "center", "size": 64},
        **{"memory": "automatic", "preview_every": 0},
    }
    pictures = torch.rand(3, 64, 64, 3, generator=generator(2))
    fit = {"epochs": 1, "held_out": 0.3, "patience": 1, "image": pictures}
    return {
        "OnlineRefine": {**common, "steps": 1, "keep_texts": ""},
        "FitProjection": {**common, **fit, "regularization_image": None},
    }


def spoilt(random: Random, inputs: dict) -> dict:
    """Some values replaced by others, and one often by a hostile one."""
    names = random.sample(sorted(PLAUSIBLE.keys() & inputs.keys()), 3)
    new = {name: random.choice(PLAUSIBLE[name]) for name in names}
    if random.random() < 0.7:
        new[random.choice(list(inputs))] = hostile.anything(random)
    for name in LENGTHS:
        value, most = new.get(name), LONGEST.get(name, 3)
        if isinstance(value, int | float) and most < value < 2**63:
            new[name] = most
    return {**inputs, **new}


def call(tools, node: str, inputs: dict):
    """A node as the host calls it: with lists where it takes lists. Its PROJECTION."""
    kind = tools.host.classes[node]
    lists = kind.define_schema().is_input_list
    given = {n: [v] for n, v in inputs.items() if v is not None or n != "regularization_image"}
    with torch.inference_mode():
        out = kind.execute(**(given if lists else inputs)).args
    return out[1]


def kind(tools, node: str, inputs: dict) -> Kind:
    def make(random: Random, _):
        changed = spoilt(random, inputs)
        return lambda: call(tools, node, changed), whole

    return Kind(node, 1.0, make)


@pytest.fixture
def one_thread():
    """Several threads on busy cores wait by spinning, which counts as CPU time of an input."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_generated_values_are_refused_clearly_or_trained_with(tools, host, monkeypatch, tmp_path):
    monkeypatch.setattr(host.nodes.refine, "REFINE", {PRESET: QUICK})
    monkeypatch.setattr(host.nodes.fit, "FIT", {PRESET: QUICK})
    before = predicted(tools.model)
    for node, inputs in good(tools).items():
        assert whole(call(tools, node, inputs)) is None
    kinds = [kind(tools, node, inputs) for node, inputs in good(tools).items()]
    report = try_all(kinds, COUNT, SEED, tmp_path)
    print(report)
    assert not report.bad, str(report)
    for node in good(tools):  # and some of both are trained with: the models are real
        assert report.counts[node, "accepted"] and report.counts[node, "clear"], str(report)
    assert not leftovers(tools.model.model)
    assert torch.equal(predicted(tools.model), before)
