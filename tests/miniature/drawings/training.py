"""What every training here shares: schedule, averaged weights, atomic resumable checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from .sources import BUILD
from .world import generator_of

RUNS = BUILD / "training"
SAVE_EVERY, LOG_EVERY = 120.0, 50  # seconds, steps


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: warm-up, then a cosine, or constant with a linear decay at the end.

    `decay` is the number of steps of the linear decay; 0 asks for the cosine.
    """

    steps: int
    rate: float
    warmup: int = 100
    decay: int = 0

    def at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup)
        if self.decay:
            left = (self.steps - step) / self.decay
            return self.rate * warm * max(0.01, min(1.0, left))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.rate * warm * (0.02 + 0.98 * cosine)

    @property
    def decay_from(self) -> int:
        return self.steps - self.decay if self.decay else self.steps


class Run:
    """AdamW, an exponential average of the weights, and a checkpoint every two minutes.

    A run with a linear decay also keeps the checkpoint from just before it, so that a later call
    with more steps goes on from there. `slow` gives parameters, by the first letters of their name,
    a share of the learning rate.
    """

    def __init__(
        self, name: str, model: nn.Module, schedule: Schedule, seed: int,
        weight_decay: float = 0.01, average: float = 0.999, folder: Path = RUNS,
        slow: Mapping[str, float] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.name, self.schedule, self.seed, self.average = name, schedule, seed, average
        self.path = folder / f"{name}.pt"
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(
            _groups(self.parameters, slow), lr=schedule.rate, betas=(0.9, 0.98),
            weight_decay=weight_decay,
        )  # fmt: skip
        self.mean = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.step, self.seconds = 0, 0.0
        self._resume()
        self._clock = self._saved = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0

    @property
    def done(self) -> bool:
        return self.step >= self.schedule.steps

    def generator(self) -> torch.Generator:
        """The randomness of the current step."""
        return generator_of(self.seed, self.step)

    def descend(self, loss: torch.Tensor, **facts: float) -> None:
        """One optimiser step on `loss`, then the average, the log line and the checkpoint."""
        if self.schedule.decay and self.step == self.schedule.decay_from:
            self.save(self._constant_path())
        for group in self.optimiser.param_groups:
            group["lr"] = group.get("share", 1.0) * self.schedule.at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        self._log({"loss": loss.item()} | facts)

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.parameters.values()), 1 - keep)

    def _log(self, facts: dict[str, float]) -> None:
        for name, value in facts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self.step % LOG_EVERY == 0 or self.done:
            now = time.monotonic()
            self.seconds, self._clock = self.seconds + now - self._clock, now
            means = "  ".join(f"{k} {v / self._count:.4f}" for k, v in self._sums.items())
            head = f"{self.name} {self.step}/{self.schedule.steps}  {self.seconds:.0f} s"
            print(f"{head}  {means}", flush=True)
            self._sums, self._count = {}, 0
            if now - self._saved > SAVE_EVERY or self.done:
                self.save(self.path)
                self._saved = now

    def save(self, path: Path) -> None:
        """Write weights, average and optimiser to one file, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".partial")
        state = {
            "model": {name: value.detach() for name, value in self.parameters.items()},
            "mean": self.mean,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, scratch)
        scratch.replace(path)

    def _constant_path(self) -> Path:
        return self.path.with_name(f"{self.name}-before-decay.pt")

    def _resume(self) -> None:
        path = self.path
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        before = self._constant_path()
        if before.exists() and state["step"] < self.schedule.decay_from:
            constant = torch.load(before, weights_only=True)
            state = constant if _decayed(state, constant) else state
        for name, value in self.parameters.items():
            value.data.copy_(state["model"][name])
            self.mean[name].copy_(state["mean"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        print(f"{self.name}: resumed at step {self.step}", flush=True)

    @torch.no_grad()
    def adopt_mean(self) -> None:
        """Put the averaged weights into the model: these are evaluated and committed."""
        for name, value in self.parameters.items():
            value.copy_(self.mean[name])


def _groups(parameters: Mapping[str, nn.Parameter], slow: Mapping[str, float]) -> list[dict]:
    """The optimiser's groups: all parameters but the slow ones, then these."""
    named = {prefix: [n for n in parameters if n.startswith(prefix)] for prefix in slow}
    apart = {name for names in named.values() for name in names}
    groups = [{"params": [p for n, p in parameters.items() if n not in apart]}]
    for prefix, share in slow.items():
        groups.append({"params": [parameters[n] for n in named[prefix]], "share": share})
    return groups


def _decayed(state: dict, constant: dict) -> bool:
    """Whether a checkpoint was written at a lower rate than the one before the decay."""
    rates = [s["optimiser"]["param_groups"][0]["lr"] for s in (state, constant)]
    return rates[0] < rates[1]
