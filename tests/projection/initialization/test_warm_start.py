"""Training that goes on from deltas of another preset: their function stays, their rows fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    FullDelta,
    LoRAConfig,
    LoRADelta,
    NoiseConfig,
    Trainer,
    TrainingConfig,
    UNetDeltas,
    fit,
    refine,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

NOISE = NoiseConfig(timesteps_per_image=4)
BLOCKS = TrainingConfig(
    0.01,
    lora=LoRAConfig("transformer blocks", 3, down_lr_scale=1.0, gradient_init_batches=1),
    noise=NOISE,
)
CROSS_KV = TrainingConfig(0.3, lora=LoRAConfig(rank=2), noise=NOISE)


def trainer(settings, projection=None):
    return Trainer(
        toys.ToyDenoiser(),
        projection or builders.small_projection(),
        toys.pictures(2),
        toys.null(),
        settings,
        0,
    )


def trained(settings):
    run = trainer(settings)
    list(refine(run, 3))
    return run.result()


def longest(down):
    return float(down.detach().norm(dim=1).max())


@pytest.mark.parametrize("first, second", [(BLOCKS, CROSS_KV), (CROSS_KV, BLOCKS)])
def test_no_steps_of_another_preset_leave_every_bit(first, second):
    given = trained(first).cross_attention.deltas
    kept = trainer(second, trained(first)).result().cross_attention.deltas
    assert kept.keys() >= given.keys()
    for name, delta in given.items():
        assert torch.equal(kept[name].down, delta.down) and torch.equal(kept[name].up, delta.up)


@pytest.mark.parametrize("first, second", [(BLOCKS, CROSS_KV), (CROSS_KV, BLOCKS)])
def test_its_rows_are_as_long_as_the_second_preset_would_draw_them(first, second):
    run, plain = trainer(second, trained(first)), trainer(second)
    for name in toys.ToyDenoiser().cross_kv_shapes:
        key = f"cross-attention.{name}.down"
        ratio = longest(run.parameters.values[key]) / longest(plain.parameters.values[key])
        assert 0.7 < ratio < 1.42
    given = trained(first).cross_attention.deltas
    live = run.parameters.current.cross_attention.deltas
    for name, delta in given.items():
        assert torch.allclose(live[name].weight(), delta.weight(), rtol=1e-6, atol=0)


def test_lengths_differ_by_more_than_that_as_they_come():
    """Else the test above could not fail."""
    plain = trainer(CROSS_KV).parameters.values
    deltas = trained(BLOCKS).cross_attention.deltas
    ratios = [
        longest(deltas[name].down.float()) / longest(plain[f"cross-attention.{name}.down"])
        for name in toys.ToyDenoiser().cross_kv_shapes
    ]
    assert min(ratios) > 3


def test_a_run_without_gain_leaves_the_next_one_free_to_be_initialised():
    run = trainer(BLOCKS)
    nothing = run.result()
    assert nothing.cross_attention is None
    assert trainer(BLOCKS, nothing).parameters.fresh_modules == run.parameters.fresh_modules != ()


def test_only_deltas_that_change_something_are_kept():
    first, second = list(toys.ToyDenoiser().cross_kv_shapes)[:2]
    shape = toys.ToyDenoiser().cross_kv_shapes[first]
    silent = LoRADelta(torch.ones(2, shape[1]), torch.zeros(shape[0], 2))
    loud = FullDelta(torch.full(toys.ToyDenoiser().cross_kv_shapes[second], 0.5))
    begun = replace(
        builders.small_projection(), cross_attention=UNetDeltas({first: silent, second: loud})
    )
    result = trainer(CROSS_KV, begun).result()
    assert list(result.cross_attention.deltas) == [second]
    assert torch.equal(result.cross_attention.deltas[second].weight(), loud.weight())


def test_a_fit_that_was_interrupted_while_it_looked_is_the_whole_one():
    def judged():
        return Trainer(
            toys.ToyDenoiser(),
            builders.small_projection(),
            toys.pictures(2),
            toys.null(),
            CROSS_KV,
            0,
            toys.pictures(1, seed=200),
        )

    whole, part = judged(), judged()
    list(fit(whole, 3))
    look = part.validate
    part.validate = lambda: look() if part.steps_done < 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(fit(part, 3))
    part.validate = look
    list(fit(part, 3))
    assert part.held_out_losses == whole.held_out_losses and part.losses == whole.losses
