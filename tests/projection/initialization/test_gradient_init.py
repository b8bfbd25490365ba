"""Where whole blocks' deltas listen: an oracle by full gradients, and laws of the training."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from image_to_prompt.projection import (
    FullDelta,
    ImageToPromptError,
    LoRADelta,
    Trainer,
    TrainingConfig,
    TrainingImages,
    UNetDeltas,
    refine,
)
from image_to_prompt.projection.data.batches import generator_of
from image_to_prompt.projection.diffusion.loss import gradients
from image_to_prompt.projection.initialization.gradient_init import gradient_directions
from image_to_prompt.projection.training.checkpoint import load_checkpoint, save_checkpoint
from image_to_prompt.projection.training.parameters import _width_factor
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

RANK = 3
SETTINGS = TrainingConfig(0.01, transformer=1.0, transformer_rank=RANK, listen=2, levels=4)


def trainer(settings=SETTINGS, projection=None, source=None, chunk=0, seed=0):
    return Trainer(
        toys.ToyDenoiser(),
        projection or builders.small_projection(),
        source or toys.pictures(2),
        toys.null(),
        settings,
        seed,
        chunk=chunk,
    )


def full_gradients(run, batches):
    """The loss's gradient (O, C) for every map's whole weight, summed over the batches."""
    maps = run.denoiser.layers
    zeros = {name: torch.zeros(shape, requires_grad=True) for name, shape in maps.items()}
    change = UNetDeltas({name: FullDelta(value) for name, value in zeros.items()})
    keys = {f"{name}.matrix": value for name, value in zeros.items()}

    class Whole:
        values, start = {}, run.trainable.start
        live = replace(start, cross_attention=change)

    Whole.values = {f"cross-attention.{name}": value for name, value in keys.items()}
    other = trainer()
    other.trainable = Whole
    total = dict.fromkeys(maps, 0.0)
    for batch in batches:
        slopes = gradients(other, batch)[1]
        total = {n: total[n] + slopes[f"cross-attention.{n}.matrix"] for n in maps}
    return total


@pytest.mark.parametrize("chunk", [0, 3])
def test_the_directions_are_those_of_a_sketch_of_the_full_gradient(chunk):
    run = trainer(chunk=chunk)
    batches = [run._batch(), run._batch()]
    found = gradient_directions(run, run.trainable.listening, batches, generator_of(5, 0))
    draws = generator_of(5, 0)
    wanted = full_gradients(run, batches)
    assert found.keys() == {f"cross-attention.{name}" for name in wanted}
    for name, gradient in wanted.items():
        sketch = torch.randn(len(gradient), RANK, generator=draws).T @ gradient
        inverse = torch.linalg.pinv(sketch.double(), rtol=1e-3)
        rows = found[f"cross-attention.{name}"].double()
        # One picture's slots hold two states, and attention ignores what all keys gain alike.
        rank = 1 if name.endswith("to_k") else 2
        ones = torch.eye(RANK).double() * (torch.arange(RANK) < rank)
        assert torch.allclose(rows @ rows.T, ones, atol=1e-5)
        assert torch.allclose(rows.T @ rows, inverse @ sketch.double(), atol=1e-3), name


def test_what_asks_leaves_the_run_as_it_was():
    run = trainer()
    before = run.trainable.copies()
    gradient_directions(run, run.trainable.listening, [run._batch()], generator_of(5, 0))
    assert all(torch.equal(v, before[n]) for n, v in run.trainable.values.items())
    assert all(v.grad is None for v in run.trainable.values.values())


def test_they_turn_before_the_first_step_and_stay():
    run = trainer()
    start = run.trainable.copies()
    run.step()
    first = run.trainable.copies()
    run.step()
    for name, value in run.trainable.values.items():
        if name.endswith(".down"):
            assert not torch.equal(first[name], start[name])
            assert torch.equal(value, first[name])
            kept = value[value.norm(dim=1) > 0]
            assert torch.allclose(kept @ kept.T, torch.eye(len(kept)), atol=1e-5)
        else:
            assert not torch.equal(value, first[name])


def test_directions_turn_further_where_the_recipe_says_so():
    run = trainer(replace(SETTINGS, directions=1.0))
    run.step()
    first = run.trainable.copies()
    run.step()
    downs = [name for name in first if name.endswith(".down")]
    for name in downs:
        moved = (run.trainable.values[name] - first[name]).norm(dim=1) > 0
        # A row that hears nothing has nothing to learn from, and stays 0.
        assert torch.equal(moved, first[name].norm(dim=1) > 0)
    assert any(bool((first[name].norm(dim=1) == 0).any()) for name in downs)


def test_the_first_step_hears_more_than_in_random_directions():
    heard = []
    for listen in (2, 0):
        run = trainer(replace(SETTINGS, listen=listen))
        with torch.enable_grad():
            run._listen()
            slopes = gradients(run, run._batch())[1]
        down = run.trainable.values
        sizes = [
            (slope.norm() / down[f"{name.removesuffix('.up')}.down"].norm()).item()
            for name, slope in slopes.items()
        ]
        heard.append(sizes)
    assert all(asked > 1.3 * drawn for asked, drawn in zip(*heard, strict=True))


def test_no_steps_are_the_closed_form_bit_for_bit():
    run, plain = trainer(), builders.small_projection()
    result, embeds = run.result(), run.pictures.embeds
    assert torch.equal(result.apply(embeds), plain.apply(embeds))
    assert result.cross_attention is None


def test_a_seed_gives_the_same_run_and_another_seed_another():
    runs = [trainer(), trainer(), trainer(seed=1)]
    for run in runs:
        list(refine(run, 3))
    a, b, c = (run.trainable.values for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a)


def test_a_run_that_is_resumed_does_not_turn_again(tmp_path):
    whole, part, rest = trainer(), trainer(), trainer()
    list(refine(whole, 4))
    list(refine(part, 2))
    save_checkpoint(part, tmp_path / "run")
    load_checkpoint(rest, tmp_path / "run")
    calls = len(rest.denoiser.seen)
    list(refine(rest, 4))
    assert len(rest.denoiser.seen) - calls == 2
    mine, theirs = whole.trainable.values, rest.trainable.values
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_deltas_that_were_there_listen_where_they_did():
    name = next(iter(toys.ToyDenoiser().maps))
    down, up = builders.normal(2, toys.WIDTH, seed=7), builders.normal(toys.SMALL, 2, seed=8)
    begun = replace(
        builders.small_projection(), cross_attention=UNetDeltas({name: LoRADelta(down, up)})
    )
    run = trainer(projection=begun)
    assert f"cross-attention.{name}" not in run.trainable.listening
    run.step()
    assert torch.equal(run.current().cross_attention.deltas[name].down, down.half())


def test_numbers_that_are_not_finite_stop_it_before_anything_changes():
    run = trainer(
        source=TrainingImages((torch.full((4, 4, 4), 1e25),) * 2, toys.pictures(2).embeds)
    )
    before = run.trainable.copies()
    with pytest.raises(ImageToPromptError, match="finite loss"):
        run.step()
    assert all(torch.equal(v, before[n]) for n, v in run.trainable.values.items())


@pytest.mark.parametrize("width, factor", [(96, 1.0), (32, 1.0), (384, 0.5), (768, 8**-0.5)])
def test_a_step_counts_alike_in_wider_models(width, factor):
    wide = SimpleNamespace(encoder=SimpleNamespace(text_width=width))
    assert _width_factor(wide) == pytest.approx(factor)
