"""One trainer for refining and fitting, whose steps the caller takes one at a time.

Loss: the diffusion loss of the user's own model, conditioned on [SOS, e(x), ..., e(x)] with e
computed from the training image x itself. Randomness depends on the seed and the number of the
step alone, so that an interrupted run goes on bit for bit as if it had not been. On a CPU that
holds for equal numbers of threads: sums are split by threads, and differ by rounding.

    trainer = Trainer(denoiser, projection, images, null, config, seed)
    for progress in refine(trainer, 30):
        show(progress)
    projection = trainer.result()
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..adapters.deep_prompts import VisionTower, check_tower
from ..adapters.unet_deltas import check_maps
from ..config.training_config import TrainingConfig
from ..data.batches import generator_of, held_out_batches
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from ..diffusion.closed_form_prompts import ClosedFormPrompts
from ..diffusion.denoiser import Denoiser, loss_weights, timestep_density
from ..diffusion.loss import DiffusionLoss
from ..diffusion.preservation import PromptPreservation, Regularizers
from ..diffusion.prompt_form import PromptForm, Prompts
from ..diffusion.reading_prompts import ReadingPrompts
from ..errors import ImageToPromptError
from ..initialization.gradient_init import gradient_directions
from ..initialization.pca_init import prompt_pca_directions
from ..projector import Projection
from ..state_dict import detached_copy
from .adamw import AdamW
from .checks import check_run
from .parameters import TrainableParameters
from .release import released
from .sampler import StepSampler


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
    encoder, only where the configuration trains deep prompts. held_out: a few images that only
    serve to choose the best state. micro_batch_size: noisy images that the model sees at once,
    0: a whole step's; fewer need less memory and give the same up to rounding. schedule_steps:
    number of steps over which the learning rate falls to a tenth; 0: it stays. prompts: for
    prompt preservation, where the configuration has some. prior: images of other kinds for prior
    preservation, where the configuration has some; None: there is none. null_pooled: (1, P), the
    empty prompt's pooled text, where the U-Net reads it (SDXL).
    Works inside inference mode. Raises ImageToPromptError before any work if something does
    not fit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        projection: Projection,
        images: TrainingImages,
        null: Tensor,
        config: TrainingConfig,
        seed: int,
        held_out: TrainingImages | None = None,
        tower: VisionTower | None = None,
        micro_batch_size: int = 0,
        schedule_steps: int = 0,
        prompts: EncodedPrompts | None = None,
        prior: TrainingImages | None = None,
        null_pooled: Tensor | None = None,
    ) -> None:
        empty = Prompts(null, null_pooled)
        sets = [some for some in (images, held_out, prior) if some is not None]
        check_run(denoiser, projection, sets, empty, config, prompts, tower is not None)
        self.denoiser, self.config, self.seed = denoiser, config, seed
        self.schedule_steps = schedule_steps
        with torch.inference_mode(False):
            device = images.embeds.device
            form = _prompt_form(projection, empty, device)
            density, weights = _noise_weighting(denoiser, config)
            self.held_out = None if held_out is None else held_out.detached_copy()
            self.sampler = StepSampler(
                images.detached_copy(),
                density,
                config,
                seed,
                None if prompts is None else prompts.detached_copy(device),
                None if prior is None else prior.detached_copy(),
            )
            self.loss = DiffusionLoss(denoiser, form, weights, config, tower, micro_batch_size)
            self.parameters = self._parameters(projection, tower, device)
            self.optimizer = AdamW(self.parameters.values)
        self._cached: dict[int, PromptPreservation] = {}
        self.losses: list[float] = []
        self.held_out_losses: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] | None = None
        self._check_adapters()

    def _parameters(
        self, projection: Projection, tower: VisionTower | None, device: torch.device
    ) -> TrainableParameters:
        lora, directions = self.config.lora, None
        if lora is not None and lora.targets == "cross-attention" and lora.rank:
            slots = self.loss.form.own_states(projection, self.images.embeds)
            directions = prompt_pca_directions(slots, self.loss.form.shared_states, lora.rank)
        generator = generator_of(self.seed, -1)
        return TrainableParameters(
            projection, self.config, self.denoiser, directions, tower, generator, device
        )

    def _check_adapters(self) -> None:
        current, tower = self.parameters.current, self.loss.tower
        if current.cross_attention is not None:
            check_maps(current.cross_attention, self.denoiser.linear_shapes)
        if current.vision is not None and tower is not None:
            check_tower(current.vision, tower)

    @property
    def images(self) -> TrainingImages:
        """The images that are trained on."""
        return self.sampler.images

    @property
    def steps_done(self) -> int:
        """Steps taken so far, those before a resumed checkpoint included."""
        return len(self.losses)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every image is seen once (rounded up)."""
        return -(-len(self.images) // self.config.batch_size)

    @property
    def best_loss(self) -> float | None:
        """The lowest held-out loss so far."""
        return min((loss for _, loss in self.held_out_losses), default=None)

    def step(self) -> float:
        """One step of the optimiser; returns the diffusion loss of the step's images.

        Raises ImageToPromptError if the loss is not finite. Whatever is raised, values and moments
        are those of the step before, but that A may have been initialised.
        """
        with released(), torch.inference_mode(False), torch.enable_grad():
            if not self.losses:
                self._initialize_from_gradients()
            loss, grads = self.loss.gradients(
                self.parameters.initial,
                self.parameters.current,
                self.parameters.trained,
                self.sampler.batch(self.steps_done),
                self.regularizers(),
            )
            self._check_finite({**grads, "loss": torch.tensor(loss)})
            self.optimizer.update(
                self.parameters.values, grads, self.learning_rates(), self.config.weight_decay
            )
        self.losses.append(loss)
        return loss

    def _check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ImageToPromptError(
                "a finite loss",
                f"infinite or NaN numbers at step {self.steps_done + 1}",
                "Use a lower learning_rate, or check model and vae for NaN.",
            )

    def _initialize_from_gradients(self) -> None:
        """Set A of the transformer blocks' new deltas, where the configuration says so."""
        modules, batches = self.parameters.fresh_modules, self.sampler.initialization_batches()
        if not modules or not batches:
            return
        found = gradient_directions(
            self.loss,
            self.parameters.initial,
            self.parameters.current,
            modules,
            batches,
            self.sampler.sketch_generator(),
        )
        self._check_finite(found)
        self.parameters.set_directions(found)

    def regularizers(self) -> Regularizers:
        """The preservation batches of the next step."""
        return Regularizers(
            self._prompt_preservation(), self.sampler.prior_preservation(self.steps_done)
        )

    def _prompt_preservation(self) -> PromptPreservation | None:
        """New for every step, or one of a few sets whose teacher predictions are computed once."""
        sets = self.config.preservation.preserve_cache
        turn = self.steps_done % sets if sets else self.steps_done
        if turn in self._cached:
            return self._cached[turn]
        found = self.sampler.prompt_preservation(turn)
        if found is not None and sets:
            teacher = self.loss.cache_teacher(self.parameters.initial, found)
            self._cached[turn] = found = replace(found, teacher_prediction=teacher)
        return found

    def learning_rates(self) -> dict[str, float]:
        """AdamW's learning rate of every tensor in the next step."""
        if not self.schedule_steps:
            return self.parameters.rates
        left = max(0.1, 1 - 0.9 * self.steps_done / self.schedule_steps)
        return {name: left * rate for name, rate in self.parameters.rates.items()}

    def validate(self) -> float:
        """Mean loss of the held-out images, at fixed noise; remembers the best state.

        A loss that is not a number counts as infinite. Raises ImageToPromptError if there are no
        held-out images.
        """
        if self.held_out is None:
            raise ImageToPromptError("held-out images", "none", "Hold out at least one.")
        batches = held_out_batches(self.held_out, self.sampler.density, self.seed)
        with released(), torch.inference_mode(False), torch.no_grad():
            losses = [self.loss.value(self.parameters.current, batch) for batch in batches]
            mean = float(torch.stack(losses).mean())
            loss = math.inf if math.isnan(mean) else mean
            if self.best_loss is None or loss < self.best_loss:
                self.best = self.parameters.snapshot()
        self.held_out_losses.append((self.steps_done, loss))
        return loss

    def current(self) -> Projection:
        """The projection as it stands; at step 0 its outputs are the given one's, bit for bit."""
        with torch.inference_mode(False):
            return self.parameters.export()

    def result(self) -> Projection:
        """The best by held-out loss where `validate` was called, else `current()`."""
        with torch.inference_mode(False):
            return self.parameters.export(self.best)


def _prompt_form(projection: Projection, null: Prompts, device: torch.device) -> PromptForm:
    """How the projection's images become prompts, in tensors that autograd can use."""
    own, projection = null.detached_copy(device), detached_copy(projection)
    if projection.readings is None:
        return ClosedFormPrompts(own, projection.centred)
    return ReadingPrompts(projection.readings, own)


def _noise_weighting(denoiser: Denoiser, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Probability of each time step, and its weight in the loss, (T,) each."""
    kind, schedule, noise = denoiser.prediction_type, denoiser.alphas_cumprod, config.noise
    density = timestep_density(
        kind, schedule, noise.sampling_min_snr_gamma, noise.uniform_timestep_fraction
    )
    return density, loss_weights(kind, schedule, noise.loss_min_snr_gamma, density)
