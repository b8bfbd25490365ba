"""Generated hostile values on the nodes' sockets and widgets, in the real host.

FUZZ_N and FUZZ_SEED say how many and from which seed; see `make fuzz`.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
import torch

from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fuzz import hostile
from image_to_prompt.tests.fuzz.judge import try_all
from image_to_prompt.tests.fuzz.kinds import Kind, Made, whole
from image_to_prompt.tests.host.test_malformed import Tools, with_change
from image_to_prompt.tests.malformed.nodes import PICTURE
from image_to_prompt.tests.malformed.stand_ins import Clip, ClipVision

COUNT, SEED = int(os.environ.get("FUZZ_N", 300)), int(os.environ.get("FUZZ_SEED", 1))
# What a widget may hold besides hostile values, so that inputs get beyond the first check.
WORDS = ("center", "none", "add", "one prompt from all", "ridge", "embedding", "low", "")
WORDS += ("travel between images", "custom", "keys", "areas", "slots", "3x3", "input 4: 1")


def spoilt(random: Random, good: dict) -> dict:
    """Good inputs with one to three replaced."""
    names = random.sample(list(good), random.randrange(1, 4))
    new = {n: random.choice([hostile.anything(random), random.choice(WORDS)]) for n in names}
    return {**good, **new}


@pytest.fixture(scope="module")
def kinds(host):
    tools = Tools(host)
    good = {
        "ImageToPromptEmbed": {
            "projection": builders.small_projection(),
            "clip": Clip(),
            "clip_vision": ClipVision(),
            "image": PICTURE,
            "text": "a dog",
            "text_weight": 0.6,
            "strength": 0.5,
            "images": "one prompt per image",
            "crop": "center",
            "blend": "add",
            "image_weights": "",
            "pads": "picture",
            "mask": None,
            "mask_use": "crop to mask",  # the stand-in has no layers to hide patches from
            "frames": "0, 3",
        },
        "ImageToPromptBlocks": {
            "conditioning": [[torch.ones(2, 77, 768), {}]],
            "base": [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 768)}]],
            "preset": "style",
            "weights": "rest: 0.5",
            "part": "keys and values",
        },
        "LoadProjection": {
            **{"file": tools.good_file, "method": "ridge", "cutoff": 0.0},
            **{"captions": "", "gap": 0.0, "corpus_size": 4000},
        },
        "SaveProjection": {
            "projection": with_change(),
            "filename_prefix": "fuzz/x",
            "save_lora": True,
        },
    }
    training = {
        **{"model": object(), "vae": object(), "image": torch.rand(2, 64, 64, 3)},
        **{"preset": "embedding", "learning_rate": 0.0, "seed": 1, "crop": "center"},
        **{"size": 512, "memory": "automatic", "preview_every": 10},
    }
    sockets = {k: good["ImageToPromptEmbed"][k] for k in ("projection", "clip", "clip_vision")}
    good["OnlineRefine"] = {**training, **sockets, "steps": 2, "keep_texts": ""}
    good["FitProjection"] = {**training, **sockets, "epochs": 1, "held_out": 0.1, "patience": 1}
    good["ApplyProjection"] = {"model": object(), "projection": with_change(), "strength": 1.0}
    widgets = {"tiles": "2x1", "mode": "areas", "text": "", "whole": 0.1, "feather": 0.25}
    factors = {"image": PICTURE, "text_weight": 0.6, "strength": 1.0}
    good["ImageToPromptLayout"] = {**sockets, **widgets, **factors}
    run = {node: caller(tools, node) for node in good}
    oracles = {"ImageToPromptEmbed": conditioning, "LoadProjection": all_whole}
    oracles |= {"SaveProjection": saved(tools)}
    oracles |= {"ImageToPromptLayout": conditioning, "ImageToPromptBlocks": finite_prompts}
    shares = {"ImageToPromptEmbed": 0.4}
    return [
        kind(node, shares.get(node, 0.12), inputs, run[node], oracles.get(node, refused))
        for node, inputs in good.items()
    ]


def all_whole(projections) -> str | None:
    """A hostile list of files gives a list of projections."""
    several = projections if isinstance(projections, list) else [projections]
    return next(filter(None, map(whole, several)), None)


def kind(node, share, good, run, oracle) -> Kind:
    def make(random: Random, folder: Path) -> Made:
        inputs = spoilt(random, good)
        return lambda: run(inputs), oracle

    return Kind(node, share, make)


def caller(tools: Tools, node: str):
    """Calls a node as the host does: with lists where it takes lists."""
    lists = tools.classes[node].define_schema().is_input_list

    def call(inputs: dict):
        given = {name: [v] for name, v in inputs.items()} if lists else inputs
        result = tools._run(node, given)
        return result[0] if node == "ImageToPromptEmbed" else result

    return call


def conditioning(result) -> str | None:
    for states, extras in result:
        if states.ndim != 3 or states.shape[1] % 77 or not torch.isfinite(states).all():
            return f"conditioning of {tuple(states.shape)}, not whole or not finite"
        if extras["pooled_output"].shape != states[:, 0].shape:
            return "another pooled output"
    return None


def finite_prompts(result) -> str | None:
    fit = all(
        torch.isfinite(states).all() and isinstance(extras, dict) for states, extras in result
    )
    return None if fit else "prompts that are not finite"


def saved(tools: Tools):
    """A save makes one or two new files, changes none, and stays in the models' folders."""
    state = {"before": contents(tools)}

    def oracle(_) -> str | None:
        before, now = state["before"], contents(tools)
        state["before"] = now
        if {path: now.get(path) for path in before} != before:
            return "a file was changed or removed"
        new = now.keys() - before.keys()
        return None if 1 <= len(new) <= 2 else f"{len(new)} new files"

    return oracle


def contents(tools: Tools) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in tools.files()}


def refused(result) -> str | None:
    return "no model, and yet accepted"


def test_generated_values_on_every_node_are_refused_clearly_or_handled(kinds, tmp_path):
    report = try_all(kinds, COUNT, SEED, tmp_path)
    print(report)
    assert not report.bad, str(report)
