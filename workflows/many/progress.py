"""What a run over a collection says while it runs, and at its end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TextIO

from .engines.task import DONE, Outcome

_EVERY_SECONDS = 10.0  # between two lines where there is no terminal
_SLOWEST = 3


@dataclass
class Summary:
    """Counts of a run. kinds: failures by kind; slowest: (seconds, job), the longest first."""

    total: int
    done: int = 0
    skipped: int = 0  # done by an earlier run
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Jobs without a result or an error: the run was ended before them."""
        return self.total - self.done - self.skipped - self.failed

    def count(self, outcome: Outcome) -> None:
        """Add a finished job."""
        good = outcome.state == DONE
        self.done += good
        self.failed += not good
        self.retried += bool(outcome.attempts) and (good or len(outcome.attempts) > 1)
        if not good:
            self.kinds[outcome.kind] += 1
        self.slowest = sorted([*self.slowest, (outcome.seconds, outcome.task.job)], reverse=True)
        del self.slowest[_SLOWEST:]

    def __str__(self) -> str:
        rate = f", {60 * self.done / self.seconds:.1f} a minute" if self.done else ""
        lines = [f"{self.done} of {self.total} done in {_span(self.seconds)}{rate}"]
        if self.skipped:
            lines.append(f"{self.skipped} were done before")
        if self.retried:
            lines.append(f"{self.retried} were tried more than once")
        if self.failed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
            lines.append(f"{self.failed} failed: {kinds}")
        if self.missing:
            lines.append(f"{self.missing} are missing: run the same command again")
        if self.slowest:
            slowest = ", ".join(f"{job} {seconds:.1f} s" for seconds, job in self.slowest)
            lines.append(f"slowest: {slowest}")
        return "\n".join(lines)


class Progress:
    """A bar on a terminal, else a line now and then; a line for each job if `verbose`."""

    def __init__(self, total: int, verbose: bool = False, stream: TextIO | None = None) -> None:
        self.summary = Summary(total)
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._verbose = verbose
        self._began = self._shown = time.monotonic()

    def skip(self) -> None:
        """A job that an earlier run has done."""
        self.summary.skipped += 1

    def take(self, outcome: Outcome) -> None:
        """A job that has ended."""
        self.summary.count(outcome)
        self.summary.seconds = time.monotonic() - self._began
        job = outcome.task.job
        if outcome.state != DONE:
            error = outcome.attempts[-1].error.splitlines() if outcome.attempts else []
            self._line(f"{job}: {error[0] if error else outcome.state}")
        elif self._verbose:
            self._line(f"{outcome.worker}: {job} {outcome.seconds:.1f} s")
        for note in outcome.notes:
            self._line(f"{job}: {note}")
        self._bar()

    def end(self) -> Summary:
        """Print the summary."""
        self.summary.seconds = time.monotonic() - self._began
        self._line(str(self.summary))
        return self.summary

    def _line(self, text: str) -> None:
        clear = "\r\033[K" if self._terminal else ""
        print(f"{clear}{text}", file=self._stream, flush=True)

    def _bar(self) -> None:
        now = time.monotonic()
        if not self._terminal and now - self._shown < _EVERY_SECONDS:
            return
        self._shown = now
        counted = self.summary
        ended = counted.done + counted.failed
        left = counted.missing * counted.seconds / ended if ended else 0.0
        text = (
            f"{counted.total - counted.missing}/{counted.total}, "
            f"{60 * ended / max(counted.seconds, 1e-9):.1f} a minute, {_span(left)} left"
        )
        if self._terminal:
            filled = 20 * (counted.total - counted.missing) // max(counted.total, 1)
            print(f"\r[{'#' * filled:20}] {text}\033[K", end="", file=self._stream, flush=True)
        else:
            self._line(text)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
