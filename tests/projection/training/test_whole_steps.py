"""A step happens whole or not at all, and one that failed leaves no tensors behind."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from image_to_prompt.projection import Trainer
from image_to_prompt.projection.training.adamw import AdamW
from image_to_prompt.projection.training.release import released
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys


class OutOfMemory(TorchFunctionMode):
    """Within it the n-th call of torch, counted from 0, finds no memory."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch._C._set_grad_enabled:  # allocates nothing, and must be undone
            return func(*args, **(kwargs or {}))
        if self.left == 0:
            raise torch.OutOfMemoryError("as a test")
        self.left -= 1
        return func(*args, **(kwargs or {}))


def optimised():
    """Two tensors after one update, their optimiser, and the arguments of another."""
    values = {"a": builders.normal(3, 4, seed=1), "b": builders.normal(5, seed=2)}
    grads = {name: builders.normal(*v.shape, seed=3) for name, v in values.items()}
    rates = {"a": 0.1, "b": 0.2}
    adam = AdamW(values)
    adam.update(values, grads, rates, 0.1)
    return values, adam, (grads, rates, 0.1)


def numbers(values, adam):
    groups = (values, adam.first, adam.second)
    return [value.tolist() for group in groups for value in group.values()], adam.step


def test_an_update_that_runs_out_of_memory_changes_nothing():
    values, adam, arguments = optimised()
    with OutOfMemory(1000) as memory:
        adam.update(values, *arguments)
    # The last calls copy into memory that is there, and allocate nothing.
    allocating = 1000 - memory.left - len(values)
    assert allocating >= 12
    for call in range(allocating):
        values, adam, arguments = optimised()
        before = numbers(values, adam)
        with pytest.raises(torch.OutOfMemoryError), OutOfMemory(call):
            adam.update(values, *arguments)
        assert numbers(values, adam) == before


def trainer(denoiser):
    return Trainer(
        denoiser,
        builders.small_projection(),
        toys.pictures(),
        toys.null(),
        toys.both(1e-2),
        0,
        held_out=toys.pictures(1, seed=200),
    )


class Saved:
    """A tensor that a graph of autograd has saved for its backward pass."""

    def __init__(self, tensor, alive):
        self.tensor = tensor.detach()  # not its own graph, which holds this
        alive.append(weakref.ref(self))


@contextmanager
def saved_tensors():
    """A list of weak references to every tensor that autograd saves in the block."""
    alive = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: Saved(tensor, alive), lambda saved: saved.tensor
    ):
        yield alive


class Failing(toys.ToyDenoiser):
    """Fails in a forward or backward pass."""

    def __init__(self, backward):
        super().__init__()
        self.backward = backward

    def predict(self, noisy, timesteps, context, deltas):
        output = super().predict(noisy, timesteps, context, deltas)
        if not self.backward:
            raise MemoryError("as a test")
        if output.requires_grad:
            output.register_hook(self.fail)
        return output

    @staticmethod
    def fail(_):
        raise MemoryError("as a test")


@pytest.mark.parametrize("backward", [False, True])
def test_a_failed_step_releases_its_tensors_though_its_exception_is_kept(backward):
    run = trainer(Failing(backward))
    gc.disable()  # nothing may wait for the collector of cycles
    try:
        with saved_tensors() as alive, pytest.raises(MemoryError) as caught:
            run.step()
        assert alive and not any(reference() is not None for reference in alive)
    finally:
        gc.enable()
    assert "gradients" in [entry.name for entry in caught.traceback], "where it was is still told"


def branches_that_fail():
    x = torch.ones(3, requires_grad=True)
    first, second = (x.exp() * 2).exp(), (x.exp() * 3).exp()
    second.register_hook(Failing.fail)  # the first one's nodes are waiting then
    torch.autograd.grad((first * second).sum(), x)


@pytest.mark.parametrize("block, left", [(nullcontext, True), (released, False)])
def test_nodes_that_wait_in_autograds_queue_are_released(block, left):
    with saved_tensors() as alive, pytest.raises(MemoryError), block():
        branches_that_fail()
    gc.collect()
    assert any(reference() is not None for reference in alive) == left


def test_a_failed_validation_changes_nothing():
    run = trainer(Failing(backward=False))
    with pytest.raises(MemoryError):
        run.validate()
    assert run.held_out_losses == [] and run.best is None


def test_the_error_that_a_caller_handles_keeps_its_variables():
    def raising():
        mine = torch.ones(3)
        raise KeyError(mine)

    try:
        raising()
    except KeyError as outer:
        frame = outer.__traceback__.tb_next.tb_frame
        with pytest.raises(MemoryError):
            trainer(Failing(backward=False)).step()
        assert "mine" in frame.f_locals


def test_a_held_out_loss_that_is_not_a_number_counts_as_infinite():
    run = trainer(toys.ToyDenoiser())
    weights = run.denoiser.weights
    run.denoiser.weights = {name: weight * torch.nan for name, weight in weights.items()}
    assert run.validate() == float("inf")
    run.denoiser.weights = weights
    assert run.validate() < float("inf") and run.best_loss < float("inf")
