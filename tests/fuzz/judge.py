"""Tries generated inputs one by one, each within a time limit, and counts how they end."""

from __future__ import annotations

import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from image_to_prompt.nodes.inputs.advice import advised
from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.tests.fuzz.kinds import Kind, Made
from image_to_prompt.workflows.api_client.inputs import InputsError

GOOD, BAD = ("clear", "accepted"), ("raw", "silent", "hanging")
LONGEST = 1000  # characters of a message
LIMIT = 20.0  # CPU seconds for an input; the slowest need under one
PATIENCE = 10 * LIMIT  # seconds, for what waits or shares its core


class Hanging(BaseException):
    """Not an Exception: nothing that is tried may catch it."""


@dataclass
class Report:
    """counts: by kind and ending. bad: what to look at, with the seed that makes it again."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        totals = {
            end: sum(n for (_, e), n in self.counts.items() if e == end) for end in GOOD + BAD
        }
        lines = [f"{kind}: {end} {n}" for (kind, end), n in sorted(self.counts.items())]
        total = f"{sum(totals.values())} tried: "
        return "\n".join(
            [*lines, *self.bad, total + ", ".join(f"{n} {e}" for e, n in totals.items())]
        )


def try_all(kinds: Sequence[Kind], count: int, seed: int, folder: Path) -> Report:
    """Try `count` inputs, the same for the same seed; each depends on its own number alone."""
    report = Report()
    shares = [kind.share for kind in kinds]
    for number in range(count):
        random = Random(f"{seed} {number}")
        kind = random.choices(kinds, shares)[0]
        place = folder / "one"
        place.mkdir(exist_ok=True)
        ending, why = judge(lambda k=kind, r=random, p=place: k.make(r, p))
        report.counts[kind.name, ending] += 1
        if ending in BAD and report.counts[kind.name, ending] <= 10:
            place_of = f"seed {seed}, input {number}"
            report.bad.append(f"{ending}: {kind.name}, {place_of}: {ascii(why)[:300]}")
        for path in place.iterdir():
            path.unlink()
    return report


def judge(make: Callable[[], Made]) -> tuple[str, str]:
    """How one input ends, and why. An error in making it is the maker's own, and leaves this."""
    act, oracle = make()
    try:
        with time_limit(LIMIT, PATIENCE):
            result = act()
            wrong = oracle(result)
        return ("silent", wrong) if wrong else ("accepted", "")
    except Hanging:
        return "hanging", f"over {LIMIT:.0f} s of CPU, or {PATIENCE:.0f} s"
    except ImageToPromptError as error:
        return _readable(str(advised(error)))
    except InputsError as error:
        return _readable(str(error))
    except AssertionError as error:
        return "silent", str(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "raw",
            f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
        )


def _readable(message: str) -> tuple[str, str]:
    if len(message) > LONGEST:
        return "raw", f"a message of {len(message)} characters"
    if not message.replace("\n", "").isprintable():
        return "raw", "a message that cannot be printed"
    return "clear", ""


@contextmanager
def time_limit(processor: float, seconds: float) -> Iterator[None]:
    """Raises Hanging in the block after these CPU seconds of the process, or after this time.

    Only where the system has timers.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise Hanging

    limits = ((signal.ITIMER_PROF, signal.SIGPROF, processor),)
    limits += ((signal.ITIMER_REAL, signal.SIGALRM, seconds),)
    before = [signal.signal(number, stop) for _, number, _ in limits]
    for timer, _, limit in limits:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
