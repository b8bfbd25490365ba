"""What every training run here shares: schedule, averaging, atomic resumable checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

BUILD = Path(__file__).resolve().parents[3] / "build" / "miniature-training"


def generator_of(seed: int, step: int) -> torch.Generator:
    """A generator that depends on seed and step only, so a resumed run draws the same data."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class Run:
    """AdamW with warm-up and cosine decay, an average of the weights, checkpoints on disk."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        steps: int,
        rate: float,
        seed: int,
        decay: float = 0.01,
        average: float = 0.999,
        folder: Path = BUILD,
    ) -> None:
        self.model, self.steps, self.rate, self.seed = model, steps, rate, seed
        self.average = average
        self.path = folder / f"{name}.safetensors"
        self.parameters = dict(model.named_parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=decay
        )
        self.mean = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.step = 0
        self.seconds = 0.0
        self._clock = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0
        if self.path.exists():
            self._resume()

    def generator(self) -> torch.Generator:
        """The randomness of the current step."""
        return generator_of(self.seed, self.step)

    def descend(self, loss: torch.Tensor, **facts: float) -> None:
        """One optimiser step on `loss`, then the average, the log line and the checkpoint."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * self._schedule()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        self._log({"loss": loss.item()} | facts)

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps)))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.parameters.values()), 1 - keep)

    def _log(self, facts: dict[str, float]) -> None:
        for name, value in facts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self.step % 50 and self.step < self.steps:
            return
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now
        means = "  ".join(f"{k} {v / self._count:.4f}" for k, v in self._sums.items())
        head = f"{self.path.stem} {self.step}/{self.steps}  {self.seconds:.0f} s"
        print(f"{head}  {means}", flush=True)
        self._sums, self._count = {}, 0
        if self.step % 200 == 0 or self.step >= self.steps:
            self.save()

    def save(self) -> None:
        """Write weights, average and optimiser to one file, atomically."""
        names = list(self.parameters)
        tensors = {f"model.{name}": self.parameters[name].detach() for name in names}
        tensors |= {f"mean.{name}": self.mean[name] for name in names}
        for index, state in self.optimiser.state_dict()["state"].items():
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"{key}.{names[index]}"] = state[key]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".partial")
        facts = {"step": str(self.step), "seconds": f"{self.seconds:.1f}"}
        save_file({k: v.contiguous() for k, v in tensors.items()}, scratch, metadata=facts)
        scratch.replace(self.path)

    def _resume(self) -> None:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            facts = file.metadata()
        tensors = load_file(self.path)
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
        for name, value in self.parameters.items():
            value.data.copy_(tensors[f"model.{name}"])
            self.mean[name].copy_(tensors[f"mean.{name}"])
            if f"exp_avg.{name}" in tensors:
                self.optimiser.state[value] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"exp_avg.{name}"],
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
                }
        print(f"{self.path.stem}: resumed at step {self.step}", flush=True)

    @torch.no_grad()
    def adopt_mean(self) -> None:
        """Put the averaged weights into the model: what is evaluated and committed."""
        for name, value in self.parameters.items():
            value.copy_(self.mean[name])
