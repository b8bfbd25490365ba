"""One trainer behind OnlineRefine and FitProjection: steps that a caller takes one at a time.

Loss: the diffusion loss of the user's own model, conditioned on [SOS, e(x), ..., e(x)] with e
computed from the training picture x itself. Randomness depends on the seed and the number of the
step alone, so a run that was interrupted goes on bit for bit as if it had not been.

    trainer = Trainer(denoiser, projection, pictures, null, recipe, seed)
    for _ in range(30):
        loss = trainer.step()
    projection = trainer.result()
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .denoiser import Denoiser
from .projector import Projection
from .recipes import Recipe
from .vision import VisionTower


@dataclass(frozen=True, eq=False)
class Pictures:
    """What training reads of N pictures; everything is computed once, before.

    latents: N tensors (4, h, w) float32, in the scale the model takes; sizes may differ.
    embeds: (N, J), joint CLIP space, from the plain vision half.
    pixels: (N, 3, S, S) preprocessed for the vision half, only where deep prompts are trained.
    Raises ImageToPromptError if these do not fit together.
    """

    latents: tuple[Tensor, ...]
    embeds: Tensor
    pixels: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run is: `step` of `steps` done, the step's loss, and the held-out loss if taken."""

    step: int
    steps: int
    loss: float
    held_out: float | None = None


class Trainer:
    """Trains one projection. Every method leaves the denoiser, tower and inputs as they were.

    null: (1, 77, D), the encoded empty prompt; its slot 0 is the SOS state. tower: the vision
    half, only where the recipe trains deep prompts (or the projection has them). held_out: a few
    pictures that are only looked at, to choose the best state. Works inside inference mode.
    Raises ImageToPromptError before any work if something does not fit.
    """

    losses: list[float]  # of every step
    held_out_losses: list[tuple[int, float]]  # (step, loss)

    def __init__(
        self,
        denoiser: Denoiser,
        projection: Projection,
        pictures: Pictures,
        null: Tensor,
        recipe: Recipe,
        seed: int,
        held_out: Pictures | None = None,
        tower: VisionTower | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def steps_done(self) -> int:
        """Steps taken so far, those before a resumed checkpoint included."""
        raise NotImplementedError

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture is seen once (rounded up)."""
        raise NotImplementedError

    def step(self) -> float:
        """One step of the optimiser; returns the loss, diffusion loss only."""
        raise NotImplementedError

    def validate(self) -> float:
        """Mean loss on the held-out pictures, at fixed noise; remembers the best state."""
        raise NotImplementedError

    def current(self) -> Projection:
        """The projection as it stands; at step 0 it gives what the given one gives, bit for bit."""
        raise NotImplementedError

    def result(self) -> Projection:
        """The best by held-out loss where `validate` was called, else `current()`."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything `restore` needs, as tensors and strings (a safetensors file's content)."""
        raise NotImplementedError

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
        """Go on from a `state()`. Raises ImageToPromptError for another recipe, seed or data."""
        raise NotImplementedError


def refine(trainer: Trainer, steps: int) -> Iterator[Progress]:
    """Take steps until `steps` are done, yielding after each one."""
    raise NotImplementedError


def fit(trainer: Trainer, epochs: int, patience: int = 10) -> Iterator[Progress]:
    """Take epochs, validating after each, until the held-out loss has not improved for
    `patience` of them; yields after each step. `trainer.result()` is then the best."""
    raise NotImplementedError
