"""One trainer for refining and fitting: steps that a caller takes one at a time.

Loss: the diffusion loss of the user's own model, conditioned on [SOS, e(x), ..., e(x)] with e
computed from the training picture x itself. Randomness depends on the seed and the number of the
step alone, so a run that was interrupted goes on bit for bit as if it had not been.

    trainer = Trainer(denoiser, projection, pictures, null, recipe, seed)
    for progress in refine(trainer, 30):
        show(progress)
    projection = trainer.result()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..adapters.deep_prompts import VisionTower, check_tower
from ..adapters.lora import check_maps
from ..data.batches import Batch, batch_of, epoch_batch, generator_of, held_out_batches
from ..data.dataset import TrainingImages, check_run
from ..data.encoded_prompts import EncodedPrompts
from ..diffusion.denoiser import Denoiser, picture_weight, timestep_density
from ..diffusion.loss import Regularizers, cache_teacher, gradients, loss_of
from ..diffusion.preservation import PromptPreservation, prior_preservation, prompt_preservation
from ..errors import ImageToPromptError
from ..initialization.gradient_init import gradient_directions
from ..initialization.pca_init import prompt_pca_directions
from ..projector import Projection
from .adamw import AdamW
from .parameters import TrainableParameters
from .presets import TrainingConfig

# Streams of randomness of their own, far from any step's number.
_KEPT, _LISTENING, _SKETCH, _PRIOR = (part << 40 for part in (3, 4, 5, 6))


@dataclass(frozen=True)
class Progress:
    """Where a run is: `step` of `steps` done, the step's loss, and the held-out loss if taken.

    After an epoch that ends early `steps` is what would have been the last.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None = None


class Trainer:
    """Trains one projection. Every method leaves the denoiser, tower and inputs as they were.

    null: (1, 77, D), the encoded empty prompt; its slot 0 is the SOS state. tower: the vision
    half, only where the recipe trains deep prompts. held_out: a few pictures that are only
    looked at, to choose the best state. chunk: how many noisy pictures the model sees at a time,
    0: a whole step's; fewer need less memory and give the same up to rounding. planned: number
    of steps over which the rate falls to a tenth; 0: it stays. texts: whose say is kept, where
    the recipe keeps some. prior: pictures of other kinds that are to stay as they are drawn,
    where the recipe has some; none: nothing is done about them.
    Works inside inference mode. Raises ImageToPromptError before any work if something does
    not fit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        projection: Projection,
        pictures: TrainingImages,
        null: Tensor,
        recipe: TrainingConfig,
        seed: int,
        held_out: TrainingImages | None = None,
        tower: VisionTower | None = None,
        chunk: int = 0,
        planned: int = 0,
        texts: EncodedPrompts | None = None,
        prior: TrainingImages | None = None,
    ) -> None:
        others = (held_out, prior)
        check_run(denoiser, projection, pictures, null, recipe, others, tower is not None, texts)
        self.denoiser, self.recipe, self.seed, self.tower = denoiser, recipe, seed, tower
        self.chunk, self.planned = chunk, planned
        with torch.inference_mode(False):
            self.pictures = pictures.owned()
            self.held_out = None if held_out is None else held_out.owned()
            self.prior = None if prior is None else prior.owned()
            device = pictures.embeds.device
            self.texts = None if texts is None else texts.owned(device)
            self.density, self.loss_weights = _times(denoiser, recipe)
            self.null = null.detach().float().to(device, copy=True)
            self.trainable = TrainableParameters(
                projection,
                recipe,
                denoiser,
                self._keys(projection),
                tower,
                generator_of(seed, -1),
                device,
            )
            self.adam = AdamW(self.trainable.values)
        self._kept: dict[int, PromptPreservation] = {}
        self.losses: list[float] = []
        self.held_out_losses: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] | None = None
        self._check_parts()

    def _keys(self, projection: Projection) -> Tensor:
        prompts = projection.apply(self.pictures.embeds)
        return prompt_pca_directions(prompts, self.null[0], self.recipe.cross_rank)

    def _check_parts(self) -> None:
        live = self.trainable.live
        if live.cross_attention is not None:
            check_maps(live.cross_attention, self.denoiser.layers)
        if live.vision is not None and self.tower is not None:
            check_tower(live.vision, self.tower)

    @property
    def steps_done(self) -> int:
        """Steps taken so far, those before a resumed checkpoint included."""
        return len(self.losses)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture is seen once (rounded up)."""
        return -(-len(self.pictures) // self.recipe.pictures)

    @property
    def best_loss(self) -> float | None:
        """The lowest held-out loss so far."""
        return min((loss for _, loss in self.held_out_losses), default=None)

    def step(self) -> float:
        """One step of the optimiser; returns the loss, diffusion loss of the pictures only.

        Raises ImageToPromptError if the loss is not finite; the values are then those of the
        step before.
        """
        with torch.inference_mode(False), torch.enable_grad():
            if not self.losses:
                self._listen()
            loss, slopes = gradients(self, self._batch(), self._keeping())
            self._check_finite({**slopes, "loss": torch.tensor(loss)})
            self.adam.update(self.trainable.values, slopes, self._rates(), self.recipe.decay)
        self.losses.append(loss)
        return loss

    def _check_finite(self, slopes: Mapping[str, Tensor]) -> None:
        if not all(bool(slope.isfinite().all()) for slope in slopes.values()):
            raise ImageToPromptError(
                "a finite loss",
                f"infinite or NaN numbers at step {self.steps_done + 1}",
                "Use a lower learning_rate, or check model and vae for NaN.",
            )

    def _listen(self) -> None:
        """Turn the deltas of whole blocks to what the loss asks of these pictures."""
        names, batches = self.trainable.listening, []
        if not names or not self.recipe.listen:
            return
        for turn in range(self.recipe.listen):
            chosen = epoch_batch(len(self.pictures), self.recipe.pictures, turn, self.seed)
            generator = generator_of(self.seed, _LISTENING + turn)
            batches.append(
                batch_of(self.pictures, chosen, self.recipe.levels, self.density, generator)
            )
        found = gradient_directions(self, names, batches, generator_of(self.seed, _SKETCH))
        self._check_finite(found)
        self.trainable.listen(found)

    def _batch(self) -> Batch:
        generator = generator_of(self.seed, self.steps_done)
        return batch_of(self.pictures, self._chosen(), self.recipe.levels, self.density, generator)

    def _chosen(self) -> list[int]:
        return epoch_batch(len(self.pictures), self.recipe.pictures, self.steps_done, self.seed)

    def _keeping(self) -> Regularizers:
        recipe, texts, pictures = self.recipe, None, None
        if recipe.keep and self.texts is not None:
            texts = self._kept_texts()
        if recipe.prior and self.prior is not None:
            sos, generator = self.null[0, 0], generator_of(self.seed, _PRIOR + self.steps_done)
            pictures = prior_preservation(self.prior, recipe.prior, self.density, sos, generator)
        return Regularizers(texts, pictures)

    def _kept_texts(self) -> PromptPreservation:
        """Those of this step: new ones, or one of a few sets of which the model is asked once."""
        recipe, sets = self.recipe, self.recipe.keep_sets
        turn = self.steps_done % sets if sets else self.steps_done
        if turn in self._kept:
            return self._kept[turn]
        chosen = epoch_batch(len(self.pictures), recipe.pictures, turn, self.seed)
        generator = generator_of(self.seed, _KEPT + turn)
        kept = prompt_preservation(
            self.pictures,
            chosen,
            recipe.keep,
            self.density,
            self.texts,
            recipe.strongest,
            generator,
        )
        kept = replace(kept, centred=self.trainable.start.centred)
        if sets:
            self._kept[turn] = kept = replace(kept, said=cache_teacher(self, kept))
        return kept

    def _rates(self) -> dict[str, float]:
        if not self.planned:
            return self.trainable.rates
        left = max(0.1, 1 - 0.9 * self.steps_done / self.planned)
        return {name: left * rate for name, rate in self.trainable.rates.items()}

    def validate(self) -> float:
        """Mean loss on the held-out pictures, at fixed noise; remembers the best state.

        Raises ImageToPromptError if there are none.
        """
        if self.held_out is None:
            raise ImageToPromptError("held-out pictures", "none", "Hold out at least one.")
        batches = held_out_batches(self.held_out, self.density, self.seed)
        with torch.inference_mode(False), torch.no_grad():
            losses = [loss_of(self, batch) for batch in batches]
            loss = float(torch.stack(losses).mean())
            if self.best_loss is None or loss < self.best_loss:
                self.best = self.trainable.copies()
        self.held_out_losses.append((self.steps_done, loss))
        return loss

    def current(self) -> Projection:
        """The projection as it stands; at step 0 it gives what the given one gives, bit for bit."""
        with torch.inference_mode(False):
            return self.trainable.frozen()

    def result(self) -> Projection:
        """The best by held-out loss where `validate` was called, else `current()`."""
        with torch.inference_mode(False):
            return self.trainable.frozen(self.best)


def _times(denoiser: Denoiser, recipe: TrainingConfig) -> tuple[Tensor, Tensor]:
    """How often each time step is drawn, and how much its error counts, (T,) each."""
    kind, schedule = denoiser.prediction, denoiser.alphas_cumprod
    density = timestep_density(kind, schedule, recipe.snr_limit, recipe.uniform)
    weights = picture_weight(kind, schedule, recipe.layout)
    # Scaled to a mean of 1 over a run, so that the loss is read as ever.
    return density, weights / (weights * density).sum()


def refine(trainer: Trainer, steps: int) -> Iterator[Progress]:
    """Take steps until `steps` are done, yielding after each one."""
    while trainer.steps_done < steps:
        loss = trainer.step()
        yield Progress(trainer.steps_done, steps, loss)


def fit(trainer: Trainer, epochs: int, patience: int = 10) -> Iterator[Progress]:
    """Take epochs, validating before the first and after each, and stop early.

    Stops when the held-out loss has not improved for `patience` epochs; without held-out
    pictures all epochs are taken. Yields after each step; `trainer.result()` is then the best.
    """
    each = trainer.steps_per_epoch
    judged = trainer.held_out is not None
    if judged and _unjudged(trainer):
        trainer.validate()
    while trainer.steps_done < epochs * each and not _stale(trainer, patience):
        loss = trainer.step()
        ends = judged and trainer.steps_done % each == 0
        held_out = trainer.validate() if ends else None
        yield Progress(trainer.steps_done, epochs * each, loss, held_out)


def _unjudged(trainer: Trainer) -> bool:
    """Whether an epoch has ended, or none begun, without a look at the held-out pictures.

    So it is before the first step, and where a run was interrupted while it looked.
    """
    looked = {step for step, _ in trainer.held_out_losses}
    return trainer.steps_done % trainer.steps_per_epoch == 0 and trainer.steps_done not in looked


def _stale(trainer: Trainer, patience: int) -> bool:
    losses = [loss for _, loss in trainer.held_out_losses]
    return len(losses) > patience and min(losses[-patience:]) > min(losses)
