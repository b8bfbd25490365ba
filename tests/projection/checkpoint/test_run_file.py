"""Runs and fitted projections as files: resumed and read back bit for bit, or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from image_to_prompt.projection import (
    DeepPrompts,
    EncodedPrompts,
    ImageToPromptError,
    LoRAConfig,
    LoRADelta,
    NoiseConfig,
    Residual,
    ResidualConfig,
    Trainer,
    TrainingConfig,
    UNetDeltas,
    fit,
    load_checkpoint,
    load_projection,
    refine,
    save_checkpoint,
    save_projection,
    training_config,
)
from image_to_prompt.projection.adapters.unet_deltas import CROSS_KV, TARGET_MODULES, cross_kv
from image_to_prompt.projection.config.presets import REFINE
from image_to_prompt.projection.state_dict import adapter_state_dict
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SETTINGS = TrainingConfig(
    1e-2, ResidualConfig(), LoRAConfig(rank=2), noise=NoiseConfig(timesteps_per_image=2)
)


def trainer(settings=SETTINGS, seed=0, seen=None, null=None, **more):
    more.setdefault("held_out", toys.pictures(1, seed=200))
    return Trainer(
        toys.ToyDenoiser(),
        more.pop("projection", builders.small_projection()),
        seen or toys.pictures(),
        toys.null() if null is None else null,
        settings,
        seed,
        **more,
    )


def same(a, b):
    mine, theirs = adapter_state_dict(a), adapter_state_dict(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(stop, tmp_path):
    whole = trainer()
    list(fit(whole, epochs=3))
    first = trainer()
    for progress in fit(first, epochs=3):
        if progress.step >= stop:
            break
    save_checkpoint(first, tmp_path / "run")
    second = trainer()
    load_checkpoint(second, tmp_path / "run")
    assert second.steps_done == max(stop, 1)
    list(fit(second, epochs=3))
    assert second.losses == whole.losses
    assert second.held_out_losses == whole.held_out_losses
    assert same(second.current(), whole.current()) and same(second.result(), whole.result())


def test_a_checkpoint_before_the_first_step_resumes(tmp_path):
    save_checkpoint(trainer(), tmp_path / "run")
    again = trainer()
    load_checkpoint(again, tmp_path / "run")
    assert again.steps_done == 0 and again.result() is not None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"settings": toys.changed(SETTINGS, timesteps_per_image=3)},
        {"seen": toys.pictures(seed=9)},
        {"seen": toys.pictures(2)},
        {"null": toys.null() + 1},
        {"held_out": None},
        {"schedule_steps": 9},
        {"projection": builders.with_bias(builders.small_projection())},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_is_refused_and_leaves_the_trainer_alone(change, tmp_path):
    other = trainer(**change)
    other.step()
    save_checkpoint(other, tmp_path / "run")
    run = trainer()
    before = run.current()
    with pytest.raises(ImageToPromptError, match="another run"):
        load_checkpoint(run, tmp_path / "run")
    assert same(run.current(), before) and run.steps_done == 0


def test_another_file_is_refused(tmp_path):
    save_projection(builders.small_projection(), tmp_path / "p")
    (tmp_path / "noise").write_bytes(b"noise")
    for name in ("p", "noise", "absent"):
        with pytest.raises(ImageToPromptError, match="saved run"):
            load_checkpoint(trainer(), tmp_path / name)


def test_a_checkpoint_without_a_tensor_is_refused_and_leaves_the_trainer_alone(tmp_path):
    path, run = tmp_path / "run", trainer()
    run.step()
    save_checkpoint(run, path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    tensors.pop("second/residual.shift")
    save_file(tensors, path, facts)
    fresh = trainer()
    with pytest.raises(ImageToPromptError, match=r"second/residual\.shift"):
        load_checkpoint(fresh, path)
    assert same(fresh.current(), trainer().current())


# --- fitted projections -----------------------------------------------------------------------


def fitted():
    names = list(toys.ToyDenoiser().cross_kv_shapes)
    half = [builders.normal(2, 32, seed=i).half() for i in range(4)]
    deltas = {
        n: LoRADelta(down, builders.normal(24, 2, seed=9).half())
        for n, down in zip(names, half, strict=True)
    }
    return {
        "residual": Residual(torch.zeros(0, 32), torch.zeros(32, 0), builders.normal(32, seed=1)),
        "vision": DeepPrompts(builders.normal(2, 3, 48, seed=2).half(), torch.ones(2, 3).half()),
        "cross_attention": UNetDeltas(deltas),
    }


@pytest.mark.parametrize("names", [[n] for n in fitted()] + [list(fitted())])
def test_saving_and_loading_give_every_bit_back(names, tmp_path):
    parts = {name: fitted()[name] for name in names}
    projection = replace(builders.with_bias(builders.small_projection()), **parts)
    save_projection(projection, tmp_path / "p")
    loaded = load_projection(tmp_path / "p")
    assert same(loaded, projection)
    types = [t.dtype for t in adapter_state_dict(loaded).values()]
    assert types == [t.dtype for t in adapter_state_dict(projection).values()]
    embeds = builders.normal(3, 32, seed=5)
    assert torch.equal(loaded.apply(embeds), projection.apply(embeds))
    with safe_open(tmp_path / "p", "pt") as file:
        assert len(json.loads(file.metadata()["features"])) == 1 + len(names)


def test_what_training_gives_is_what_the_file_gives(tmp_path):
    run = trainer()
    list(refine(run, 3))
    save_projection(run.result(), tmp_path / "p")
    assert same(load_projection(tmp_path / "p"), run.result())


def test_a_plain_projection_is_saved_as_ever(tmp_path):
    save_projection(builders.small_projection(), tmp_path / "p")
    with safe_open(tmp_path / "p", "pt") as file:
        assert json.loads(file.metadata()["features"]) == []
        assert sorted(file.keys()) == ["matrix", "singular_values"]
    loaded = load_projection(tmp_path / "p")
    assert (loaded.residual, loaded.vision, loaded.cross_attention) == (None, None, None)


def resaved(path, change_facts=None, drop=None):
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    if drop:
        tensors = {k: t for k, t in tensors.items() if not k.startswith(drop)}
    save_file(tensors, path, facts | (change_facts or {}))


def test_a_feature_of_a_later_version_is_refused_by_name(tmp_path):
    save_projection(replace(builders.small_projection(), **fitted()), tmp_path / "p")
    resaved(tmp_path / "p", {"features": json.dumps(["residual", "teleport"])})
    with pytest.raises(ImageToPromptError, match="teleport"):
        load_projection(tmp_path / "p")


@pytest.mark.parametrize(
    "drop", ["residual.up", "residual", "vision", "cross", "vision prompts.gates"]
)
def test_a_file_without_a_promised_part_is_refused(drop, tmp_path):
    save_projection(replace(builders.small_projection(), **fitted()), tmp_path / "p")
    resaved(tmp_path / "p", drop=drop)
    with pytest.raises(ImageToPromptError, match="whole projection file"):
        load_projection(tmp_path / "p")


def _of_sd15(name, size):
    """(O, C) of a linear map in a transformer block of this width."""
    if name.endswith(CROSS_KV):
        return size, 768
    grown = {".ff.net.0.proj": (8 * size, size), ".ff.net.2": (size, 4 * size)}
    return next((s for end, s in grown.items() if name.endswith(end)), (size, size))


@pytest.mark.parametrize("name", list(REFINE))
def test_a_refined_projection_for_sd15_has_at_most_10_megabytes(name, tmp_path):
    shapes = [320] * 5 + [640] * 5 + [1280] * 6
    denoiser = toys.ToyDenoiser()
    denoiser.linear_shapes = {
        f"input_blocks.{i}.1.transformer_blocks.0{name}": _of_sd15(name, size)
        for i, size in enumerate(shapes)
        for name in TARGET_MODULES
    }
    denoiser.cross_kv_shapes = cross_kv(denoiser.linear_shapes)
    weight = builders.text_projection(768)
    plain = type(builders.small_projection()).from_text_projection(weight)
    seen = type(toys.pictures())((torch.zeros(4, 2, 2),), torch.ones(1, 768))
    run = Trainer(
        denoiser,
        plain,
        seen,
        torch.ones(1, 77, 768),
        training_config(REFINE, name),
        0,
        prompts=EncodedPrompts(torch.ones(1, 77, 768), (3,)),
    )
    save_projection(run.result(), tmp_path / "p")
    assert 2.3e6 < (tmp_path / "p").stat().st_size <= 10e6
