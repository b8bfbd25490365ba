"""The two ways of taking a trainer's steps: refining and fitting."""

from __future__ import annotations

from collections.abc import Iterator

from .trainer import Progress, Trainer


def refine(trainer: Trainer, steps: int) -> Iterator[Progress]:
    """Take steps until `steps` are done, yielding after each one."""
    while trainer.steps_done < steps:
        loss = trainer.step()
        yield Progress(trainer.steps_done, steps, loss)


def fit(trainer: Trainer, epochs: int, patience: int = 10) -> Iterator[Progress]:
    """Take epochs, validating before the first and after each, and stop early.

    Stops when the held-out loss has not improved for `patience` epochs; without held-out images
    all epochs are taken. Yields after each step; `trainer.result()` is then the best.
    """
    each = trainer.steps_per_epoch
    validates = trainer.held_out is not None
    if validates and _validation_is_due(trainer):
        trainer.validate()
    while trainer.steps_done < epochs * each and not _is_stale(trainer, patience):
        loss = trainer.step()
        ends = validates and trainer.steps_done % each == 0
        held_out = trainer.validate() if ends else None
        yield Progress(trainer.steps_done, epochs * each, loss, held_out)


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether an epoch has ended, or none begun, without a validation.

    So it is before the first step, and where a run was interrupted while it validated.
    """
    validated = {step for step, _ in trainer.held_out_losses}
    return trainer.steps_done % trainer.steps_per_epoch == 0 and trainer.steps_done not in validated


def _is_stale(trainer: Trainer, patience: int) -> bool:
    losses = [loss for _, loss in trainer.held_out_losses]
    return len(losses) > patience and min(losses[-patience:]) > min(losses)
