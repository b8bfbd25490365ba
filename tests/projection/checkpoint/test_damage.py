"""Damaged files of unfinished runs, generated: refused as a whole, and the trainer is as before."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from image_to_prompt.projection import (
    ImageToPromptError,
    Trainer,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys


def trainer():
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(),
        toys.null(),
        toys.both(1e-2),
        0,
        held_out=toys.pictures(1, seed=200),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Tensors and metadata of a run of six steps, and its path."""
    path = tmp_path_factory.mktemp("run") / "run"
    run = trainer()
    list(fit(run, epochs=2))
    save_checkpoint(run, path)
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata(), path


def state(run):
    """Everything that a step changes, in bytes."""
    groups = (run.parameters.values, run.optimizer.first, run.optimizer.second, run.best or {})
    tensors = {
        f"{kind}/{name}": value.detach().contiguous()
        for kind, group in enumerate(groups)
        for name, value in group.items()
    }
    return save(tensors), run.optimizer.step, list(run.losses), list(run.held_out_losses)


def filled(tensor, number):
    """The tensor with one number changed."""
    other = tensor.clone()
    other.view(-1)[0] = number
    return other


TENSORS = {
    "missing": lambda t: None,
    "NaN": lambda t: filled(t, torch.nan),
    "infinite": lambda t: filled(t, torch.inf),
    "of float16": lambda t: t.half(),
    "of float64": lambda t: t.double(),
    "of integers": lambda t: t.int(),
    "of complex numbers": lambda t: t.to(torch.complex64),
    "0-d": lambda t: torch.tensor(1.0),
    "flat": lambda t: t.reshape(-1)[None, None],
    "longer": lambda t: torch.cat([t, t]),
    "empty": lambda t: t[:0],
}
LOSSES = [
    "",
    "null",
    "{}",
    "1.0",
    '"text"',
    "[1.0, ",
    "[" * 100_000,
    '["0.5", 0.5]',
    "[true]",
    "[NaN]",
    "[Infinity]",
    "[-1.0]",
    "[null]",
    "[[0.5]]",
    f"[{10**400}]",
    "[1e999]",
]
HELD_OUT = [
    *LOSSES,
    "[[0]]",
    "[[0, 0.5, 1]]",
    "[[0.0, 0.5]]",
    "[[true, 0.5]]",
    '[["0", 0.5]]',
    "[[0, NaN]]",
    "[[0, -0.5]]",
    "[[-1, 0.5]]",
    "[[99, 0.5]]",
    "[[3, 0.5], [0, 0.5]]",
    "[[0, 0.5], [0, 0.5]]",
    "[]",
]


def assert_refused(path):
    run = trainer()
    before = state(run)
    with pytest.raises(ImageToPromptError) as caught:
        load_checkpoint(run, path)
    assert state(run) == before
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.parametrize("kind", ["value", "first", "second", "best"])
def test_a_damaged_tensor_is_refused(whole, tmp_path, kind, change):
    tensors, facts, _ = whole
    keys = [key for key, t in tensors.items() if key.startswith(f"{kind}/") and t.numel()]
    for key in random.Random(kind + change).sample(keys, 3):
        damaged = {**tensors, key: TENSORS[change](tensors[key])}
        save_file({k: t for k, t in damaged.items() if t is not None}, tmp_path / "run", facts)
        assert_refused(tmp_path / "run")


def test_negative_second_moments_and_unknown_tensors_are_refused(whole, tmp_path):
    tensors, facts, _ = whole
    key = next(key for key, t in tensors.items() if key.startswith("second/") and t.numel())
    for damage in ({key: filled(tensors[key], -1.0)}, {"value/other": torch.zeros(1)}):
        save_file(tensors | damage, tmp_path / "run", facts)
        assert_refused(tmp_path / "run")


@pytest.mark.parametrize(
    "name, text",
    [*(("losses", text) for text in LOSSES), *(("held_out_losses", text) for text in HELD_OUT)],
    ids=lambda text: text[:20],
)
def test_damaged_losses_are_refused(whole, tmp_path, name, text):
    tensors, facts, _ = whole
    save_file(tensors, tmp_path / "run", {**facts, name: text})
    assert_refused(tmp_path / "run")


@pytest.mark.parametrize("name", ["format", "format_version", "losses", "held_out_losses"])
def test_missing_metadata_is_refused(whole, tmp_path, name):
    tensors, facts, _ = whole
    save_file(tensors, tmp_path / "run", {k: v for k, v in facts.items() if k != name})
    assert_refused(tmp_path / "run")


def test_a_folder_and_a_pipe_are_refused(tmp_path):
    import os

    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert_refused(tmp_path / "pipe")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_bytes_that_were_changed_are_refused_or_change_nothing_else(whole, data):
    """Flipped bits in numbers are numbers: those are seen only where they are out of range."""
    _, _, path = whole
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    what = data.draw(st.sampled_from(["cut", "header", "insert"]))
    place = data.draw(st.integers(0, header - 1))
    if what == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif what == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    other = path.with_name("changed")
    other.write_bytes(content)
    run = trainer()
    before = state(run)
    try:
        load_checkpoint(run, other)
    except ImageToPromptError:
        assert state(run) == before
    else:
        # A loss with another digit is a loss; whatever was taken over is whole and finite.
        assert run.steps_done == run.optimizer.step == len(run.losses)
        assert all(value.isfinite().all() for value in run.parameters.values.values())
        run.step()


def test_the_whole_file_is_taken(whole):
    run = trainer()
    load_checkpoint(run, whole[2])
    assert run.steps_done == 6 and json.loads(whole[1]["losses"]) == run.losses


# --- rounding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor, taken", [(1 + 1e-6, True), (1.01, False)])
@pytest.mark.parametrize("what", ["latents", "embeds", "null"])
def test_a_run_goes_on_where_its_inputs_differ_by_rounding(whole, what, factor, taken):
    seen, null = toys.pictures(), toys.null()
    latents = tuple(t * (factor if what == "latents" else 1) for t in seen.latents)
    images = type(seen)(latents, seen.embeds * (factor if what == "embeds" else 1))
    run = Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        images,
        null * (factor if what == "null" else 1),
        toys.both(1e-2),
        0,
        held_out=toys.pictures(1, seed=200),
    )
    if taken:
        load_checkpoint(run, whole[2])
        assert run.steps_done == 6
    else:
        with pytest.raises(ImageToPromptError, match="another run"):
            load_checkpoint(run, whole[2])
