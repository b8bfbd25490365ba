"""An unfinished fit on disk, so that an interrupt, an error or a crash loses little."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from types import TracebackType

from ...projection import (
    ImageToPromptError,
    Progress,
    Trainer,
    load_checkpoint,
    save_checkpoint,
)
from ...projection.checkpoint.run_file import run_fingerprint
from ..host.files import unfinished_path

log = logging.getLogger(__name__)

# Of the time goes into saving: what a crash loses is some fifty times a save, mostly a few steps.
SHARE = 0.02
RETRY = 60.0  # seconds after which a failed save is tried again
DAMAGED = ".damaged"  # the ending of a file that cannot be gone on from


class Unfinished:
    """Resumes an earlier run of this name, saves the run while it lasts, then removes the file.

    The file is that of this very run: another VAE, text encoder or device makes another, so that
    none writes over a file that it cannot go on from. A run that another number of threads has
    begun is resumed, up to rounding. A damaged file is renamed, and the run starts anew. A folder
    that cannot be written to stops nothing: the run is then not saved, and a warning is logged.

    earlier_name: of the same run in version 0.1.0, which did not tell every model from another. A
    file of that name is left alone and told.
    """

    def __init__(self, trainer: Trainer, name: str, earlier_name: str = "") -> None:
        self._trainer, self._name = trainer, name
        run = run_fingerprint(trainer)[:12]
        self._path = unfinished_path(f"{name}-{run}")
        self._earlier_path = unfinished_path(f"{earlier_name}-{run}")
        self._next_save = 0.0

    def __enter__(self) -> Unfinished:
        if os.path.lexists(self._path):
            self._resume_or_set_aside()
        else:
            self._resume_from_sibling()
        if self._trainer.steps_done:
            log.info("going on from step %d of %s", self._trainer.steps_done, self._path)
        elif not os.path.exists(self._path) and os.path.exists(self._earlier_path):
            log.warning(
                "starting anew: %s is of an earlier version, which did not tell every MODEL from "
                "another. If it was fitted with this very MODEL, interrupt now, rename it to %s "
                "and run again to go on from it.",
                self._earlier_path,
                os.path.basename(self._path),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._remove()
        elif self._trainer.steps_done and self._save():
            log.info("run it again to go on from step %d", self._trainer.steps_done)

    def keeping(self, progress: Iterator[Progress]) -> Iterator[Progress]:
        """The same progress, saved from time to time."""
        for state in progress:
            if time.monotonic() >= self._next_save:
                self._save()
            yield state

    def _resume_or_set_aside(self) -> None:
        try:
            load_checkpoint(self._trainer, self._path)
        except ImageToPromptError as error:
            log.warning("starting anew instead of going on: %s", error)
            self._set_aside()

    def _resume_from_sibling(self) -> None:
        """Resume a run of this name whose inputs differ from this one's by rounding only."""
        folder, own = os.path.split(self._path)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return  # no folder yet: nothing is unfinished
        ending = os.path.splitext(own)[1]
        for name in names:
            if name.startswith(f"{self._name}-") and name.endswith(ending):
                path = os.path.join(folder, name)
                try:
                    load_checkpoint(self._trainer, path)
                except ImageToPromptError as error:
                    log.debug("another run is left alone: %s", error)
                else:
                    self._path = path
                    return

    def _set_aside(self) -> None:
        """Rename the file to a name that no file has."""
        number = 1
        while os.path.lexists(aside := f"{self._path}{DAMAGED}{number}"):
            number += 1
        try:
            os.rename(self._path, aside)
        except OSError as error:
            log.warning("%s cannot be renamed: %s", self._path, error)
        else:
            log.warning("the file is now %s", aside)

    def _save(self) -> bool:
        start = time.monotonic()
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            save_checkpoint(self._trainer, self._path)
        except OSError as error:
            log.warning("the unfinished fit cannot be kept, an interrupt loses it: %s", error)
            self._next_save = time.monotonic() + RETRY
            return False
        end = time.monotonic()
        self._next_save = end + (end - start) / SHARE
        return True

    def _remove(self) -> None:
        if os.path.exists(self._path):
            try:
                os.remove(self._path)
            except OSError as error:
                log.warning("delete %s yourself: %s", self._path, error)
