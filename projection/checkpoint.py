"""A run on disk: written whole or not at all, resumed bit for bit."""

from __future__ import annotations

from pathlib import Path

from .trainer import Trainer


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write the run as it stands."""
    raise NotImplementedError


def load_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Let a fresh trainer, made with the same arguments, go on from a saved run.

    Raises ImageToPromptError for another kind of file, or a run with other pictures, model,
    recipe or seed.
    """
    raise NotImplementedError
