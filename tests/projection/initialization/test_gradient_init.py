"""Gradient initialisation of LoRA's A: an oracle by full gradients, and laws of the training."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from image_to_prompt.projection import (
    FullDelta,
    ImageToPromptError,
    LoRAConfig,
    LoRADelta,
    NoiseConfig,
    Trainer,
    TrainingConfig,
    TrainingImages,
    UNetDeltas,
    refine,
)
from image_to_prompt.projection.checkpoint.run_file import load_checkpoint, save_checkpoint
from image_to_prompt.projection.data.batches import generator_of
from image_to_prompt.projection.initialization.gradient_init import gradient_directions
from image_to_prompt.projection.training.parameters import _width_factor
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

RANK = 3
LORA = LoRAConfig("transformer blocks", RANK, gradient_init_batches=2)
SETTINGS = TrainingConfig(0.01, lora=LORA, noise=NoiseConfig(timesteps_per_image=4))


def trainer(settings=SETTINGS, projection=None, source=None, micro_batch_size=0, seed=0):
    return Trainer(
        toys.ToyDenoiser(),
        projection or builders.small_projection(),
        source or toys.pictures(2),
        toys.null(),
        settings,
        seed,
        micro_batch_size=micro_batch_size,
    )


def full_gradients(run, batches):
    """The loss's gradient (O, C) for every map's whole weight, summed over the batches."""
    maps = run.denoiser.linear_shapes
    zeros = {name: torch.zeros(shape, requires_grad=True) for name, shape in maps.items()}
    change = UNetDeltas({name: FullDelta(value) for name, value in zeros.items()})
    initial = run.parameters.initial
    current = replace(initial, cross_attention=change)
    total = dict.fromkeys(maps, 0.0)
    for batch in batches:
        grads = run.loss.gradients(initial, current, zeros, batch)[1]
        total = {name: total[name] + grads[name] for name in maps}
    return total


def directions(run, batches):
    parameters = run.parameters
    modules, generator = parameters.fresh_modules, generator_of(5, 0)
    return gradient_directions(
        run.loss, parameters.initial, parameters.current, modules, batches, generator
    )


@pytest.mark.parametrize("chunk", [0, 3])
def test_the_directions_are_those_of_a_sketch_of_the_full_gradient(chunk):
    run = trainer(micro_batch_size=chunk)
    batches = [run.sampler.batch(0), run.sampler.batch(0)]
    found = directions(run, batches)
    draws = generator_of(5, 0)
    wanted = full_gradients(run, batches)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        sketch = torch.randn(len(gradient), RANK, generator=draws).T @ gradient
        inverse = torch.linalg.pinv(sketch.double(), rtol=1e-3)
        rows = found[name].double()
        # One picture's slots hold two states, and attention ignores what all keys gain alike.
        rank = 1 if name.endswith("to_k") else 2
        ones = torch.eye(RANK).double() * (torch.arange(RANK) < rank)
        assert torch.allclose(rows @ rows.T, ones, atol=1e-5)
        assert torch.allclose(rows.T @ rows, inverse @ sketch.double(), atol=1e-3), name


def test_computing_directions_leaves_the_run_as_it_was():
    run = trainer()
    before = run.parameters.snapshot()
    directions(run, [run.sampler.batch(0)])
    assert all(torch.equal(v, before[n]) for n, v in run.parameters.values.items())
    assert all(v.grad is None for v in run.parameters.values.values())


def test_directions_are_set_before_the_first_step_and_stay():
    run = trainer()
    start = run.parameters.snapshot()
    run.step()
    first = run.parameters.snapshot()
    run.step()
    for name, value in run.parameters.values.items():
        if name.endswith(".down"):
            assert not torch.equal(first[name], start[name])
            assert torch.equal(value, first[name])
            kept = value[value.norm(dim=1) > 0]
            assert torch.allclose(kept @ kept.T, torch.eye(len(kept)), atol=1e-5)
        else:
            assert not torch.equal(value, first[name])


def test_directions_are_trained_further_where_the_configuration_says_so():
    run = trainer(replace(SETTINGS, lora=replace(LORA, down_lr_scale=1.0)))
    run.step()
    first = run.parameters.snapshot()
    run.step()
    downs = [name for name in first if name.endswith(".down")]
    for name in downs:
        moved = (run.parameters.values[name] - first[name]).norm(dim=1) > 0
        # A row of zeros has no gradient, and stays 0.
        assert torch.equal(moved, first[name].norm(dim=1) > 0)
    assert any(bool((first[name].norm(dim=1) == 0).any()) for name in downs)


def test_the_gradient_of_b_is_larger_than_for_random_directions():
    gains = []
    for batches in (2, 0):
        run = trainer(replace(SETTINGS, lora=replace(LORA, gradient_init_batches=batches)))
        with torch.enable_grad():
            run._initialize_from_gradients()
            grads = toys.gradients(run, run.sampler.batch(0))[1]
        down = run.parameters.values
        sizes = [
            (grad.norm() / down[f"{name.removesuffix('.up')}.down"].norm()).item()
            for name, grad in grads.items()
        ]
        gains.append(sizes)
    assert all(asked > 1.3 * drawn for asked, drawn in zip(*gains, strict=True))


def test_no_steps_are_the_closed_form_bit_for_bit():
    run, plain = trainer(), builders.small_projection()
    result, embeds = run.result(), run.images.embeds
    assert torch.equal(result.apply(embeds), plain.apply(embeds))
    assert result.cross_attention is None


def test_a_seed_gives_the_same_run_and_another_seed_another():
    runs = [trainer(), trainer(), trainer(seed=1)]
    for run in runs:
        list(refine(run, 3))
    a, b, c = (run.parameters.values for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a)


def test_a_resumed_run_is_not_initialised_again(tmp_path):
    whole, part, rest = trainer(), trainer(), trainer()
    list(refine(whole, 4))
    list(refine(part, 2))
    save_checkpoint(part, tmp_path / "run")
    load_checkpoint(rest, tmp_path / "run")
    calls = len(rest.denoiser.seen)
    list(refine(rest, 4))
    assert len(rest.denoiser.seen) - calls == 2
    mine, theirs = whole.parameters.values, rest.parameters.values
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_deltas_of_an_earlier_training_keep_their_directions():
    name = next(iter(toys.ToyDenoiser().cross_kv_shapes))
    down, up = builders.normal(2, toys.WIDTH, seed=7), builders.normal(toys.SMALL, 2, seed=8)
    begun = replace(
        builders.small_projection(), cross_attention=UNetDeltas({name: LoRADelta(down, up)})
    )
    run = trainer(projection=begun)
    assert name not in run.parameters.fresh_modules
    run.step()
    assert torch.equal(run.current().cross_attention.deltas[name].down, down.half())


def test_numbers_that_are_not_finite_stop_it_before_anything_changes():
    run = trainer(
        source=TrainingImages((torch.full((4, 4, 4), 1e25),) * 2, toys.pictures(2).embeds)
    )
    before = run.parameters.snapshot()
    with pytest.raises(ImageToPromptError, match="finite loss"):
        run.step()
    assert all(torch.equal(v, before[n]) for n, v in run.parameters.values.items())


@pytest.mark.parametrize("width, factor", [(96, 1.0), (32, 1.0), (384, 0.5), (768, 8**-0.5)])
def test_a_step_counts_alike_in_wider_models(width, factor):
    wide = SimpleNamespace(context_width=width)
    assert _width_factor(wide, SETTINGS) == pytest.approx(factor)
