"""The diffusion loss under the image's own prompt, and its gradient in micro-batches.

    L = mean_k w(t_k) |model(x_k, t_k, prompt(e)) - target_k|^2
        + anchor_weight (1 - cos(e, e before training)) + preservation losses

prompt(e): [SOS, e, ..., e] for SD 1.x, see `prompt_form`. The embeddings e are computed once a
step. Each micro-batch gives a gradient for them and for the weight deltas of the U-Net; the former
are backpropagated through the projection (and the vision encoder) once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..adapters.deep_prompts import VisionTower, encode_pictures
from ..config.training_config import TrainingConfig
from ..data.batches import Batch
from ..errors import ImageToPromptError
from ..projector import Projection
from .denoiser import Denoiser, LinearDelta, add_noise, target
from .preservation import PreservationBatch, Regularizers
from .prompt_form import PromptForm, Prompts

_NONE = Regularizers()
Weighted = Sequence[tuple[PreservationBatch, float]]


@dataclass(frozen=True, eq=False)
class DiffusionLoss:
    """The loss of one denoiser under one configuration. Immutable, and without state.

    form: how images become prompts. weights: (T,), of each time step, see `loss_weights`.
    tower: the vision encoder, only where deep prompts are trained. micro_batch_size: noisy images
    that the model sees at once; 0: all of one size.
    """

    denoiser: Denoiser
    form: PromptForm
    weights: Tensor
    config: TrainingConfig
    tower: VisionTower | None = None
    micro_batch_size: int = 0

    def gradients(
        self,
        initial: Projection,
        current: Projection,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        regularizers: Regularizers = _NONE,
    ) -> tuple[float, dict[str, Tensor]]:
        """The diffusion loss of a batch, and the gradient of L for every parameter.

        initial: the projection before training; current: the one of the parameters, which are
        tensors of its adapters by any names. The number leaves out anchor and preservation.
        Raises ImageToPromptError where the model's prediction has another shape than the latents.
        """
        preserved = regularizers.weighted(self.config.preservation)
        delta_params, embedding_params = _split(parameters, current)
        batches = [batch, *(some.batch for some, _ in preserved)]
        embeddings = [self.embeddings(current, each) for each in batches]
        leaves = [e.detach().requires_grad_(bool(embedding_params)) for e in embeddings]
        inputs = [*delta_params.values(), *(leaves if embedding_params else [])]
        sums = [torch.zeros_like(tensor) for tensor in inputs]
        total = 0.0
        for loss, share in self._micro_losses(initial, current, batch, preserved, leaves):
            # A dropped condition is unused.
            found = torch.autograd.grad(loss, inputs, allow_unused=True)
            sums = [s if g is None else s + g for s, g in zip(sums, found, strict=True)]
            total += share
        grads = dict(zip(delta_params, sums, strict=False))
        if embedding_params:
            at_leaves = sums[len(delta_params) :]
            products = [(e * g).sum() for e, g in zip(embeddings, at_leaves, strict=True)]
            surrogate = sum(products[1:], products[0])
            if self.config.anchor_weight:
                surrogate = surrogate + self._anchor(initial, batch, embeddings[0])
            grads |= _gradients_of(surrogate, embedding_params)
        return total, grads

    def value(self, current: Projection, batch: Batch) -> Tensor:
        """The diffusion loss of a batch, a scalar, without condition dropout."""
        embeddings = self.embeddings(current, batch)
        parts = [
            self._loss(current, batch, index, embeddings, dropout=0.0)
            for index in batch.micro_batches(self.micro_batch_size)
        ]
        return torch.stack(parts).sum()

    def embeddings(self, current: Projection, batch: Batch) -> Tensor:
        """Embeddings (B, E) of the batch's images, see `PromptForm`; differentiable."""
        source, embeds = batch.source, batch.source.embeds[batch.images]
        if self.config.deep_prompts and self.tower is not None and source.pixels is not None:
            embeds = encode_pictures(self.tower, source.pixels[batch.images], current.vision)
        return self.form.embeddings(current, embeds)

    def preservation_loss(
        self,
        initial: Projection,
        current: Projection,
        preserved: PreservationBatch,
        index: Tensor,
        embeddings: Tensor,
    ) -> Tensor:
        """Summed errors of the pairs `index` (G,) against the teacher's predictions, a scalar.

        embeddings: (B, E), of the batch's images as they are in training.
        """
        noisy, timesteps = self._noisy(preserved.batch, index)
        if preserved.teacher_prediction is None:
            wanted = self.teacher_predictions(initial, preserved, index)
        else:
            wanted = torch.stack([preserved.teacher_prediction[k] for k in index.tolist()])
        prompts = preserved.contexts(self.form, embeddings, index)
        prediction = self._predict(noisy, timesteps, prompts, current)
        return self._errors(prediction, wanted, timesteps).sum()

    def teacher_predictions(
        self, initial: Projection, preserved: PreservationBatch, index: Tensor
    ) -> Tensor:
        """Predictions (G, 4, h, w) float32 for the pairs `index` (G,) before training."""
        batch = preserved.batch
        noisy, timesteps = self._noisy(batch, index)
        with torch.no_grad():
            plain = self.form.embeddings(initial, batch.source.embeds[batch.images])
            prompts = preserved.contexts(self.form, plain, index)
            return self._predict(noisy, timesteps, prompts, initial).float()

    def cache_teacher(
        self, initial: Projection, preserved: PreservationBatch
    ) -> tuple[Tensor, ...]:
        """`teacher_predictions` (4, h, w) of every pair, in the order of the pairs."""
        found: dict[int, Tensor] = {}
        for index in preserved.batch.micro_batches(self.micro_batch_size):
            predictions = self.teacher_predictions(initial, preserved, index)
            found |= zip(index.tolist(), predictions, strict=True)
        return tuple(found[pair] for pair in range(len(preserved.batch)))

    def _micro_losses(
        self,
        initial: Projection,
        current: Projection,
        batch: Batch,
        preserved: Weighted,
        leaves: list[Tensor],
    ) -> Iterator[tuple[Tensor, float]]:
        """Losses, one graph at a time, and the share of each in the diffusion loss."""
        for index in batch.micro_batches(self.micro_batch_size):
            loss = self._loss(current, batch, index, leaves[0], self.config.condition_dropout)
            yield loss, float(loss.detach())
        for (some, weight), leaf in zip(preserved, leaves[1:], strict=True):
            for index in some.batch.micro_batches(self.micro_batch_size):
                loss = self.preservation_loss(initial, current, some, index, leaf)
                yield weight / len(batch) * loss, 0.0

    def _loss(
        self,
        current: Projection,
        batch: Batch,
        index: Tensor,
        embeddings: Tensor,
        dropout: float,
    ) -> Tensor:
        """The share of the pairs `index` (G,) in the batch's mean loss."""
        noisy, timesteps = self._noisy(batch, index)
        places = batch.image_index[index].to(embeddings.device)
        prompts = self.form.of_images(embeddings[places])
        conditioned = (batch.dropout_u[index] >= dropout).to(embeddings.device)
        prompts = prompts.where(conditioned, self.form.null)
        prediction = self._predict(noisy, timesteps, prompts, current)
        schedule, kind = self.denoiser.alphas_cumprod, self.denoiser.prediction_type
        noise = torch.stack([batch.noise[k] for k in index.tolist()])
        wanted = target(kind, schedule, batch.latents(index), noise, timesteps)
        if prediction.shape != wanted.shape:
            raise ImageToPromptError(
                f"a model whose prediction has the latents' shape {tuple(wanted.shape)}",
                f"{tuple(prediction.shape)}",
                "Use the model and the VAE of one checkpoint.",
            )
        return self._errors(prediction, wanted, timesteps).sum() / len(batch)

    def _anchor(self, initial: Projection, batch: Batch, embeddings: Tensor) -> Tensor:
        """The anchor term of L for the batch's embeddings (B, E)."""
        before = self.form.embeddings(initial, batch.source.embeds[batch.images])
        away = 1 - cosine_similarity(embeddings, before, dim=-1)
        return self.config.anchor_weight * away.mean()

    def _predict(
        self, noisy: Tensor, timesteps: Tensor, prompts: Prompts, projection: Projection
    ) -> Tensor:
        """The model's prediction (G, 4, h, w) under prompts and the projection's deltas."""
        deltas = _deltas(projection)
        return self.denoiser.predict(noisy, timesteps, prompts.states, deltas, **prompts.named())

    def _noisy(self, batch: Batch, index: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (G, 4, h, w) and time steps (G,) of the pairs `index` (G,)."""
        noise = torch.stack([batch.noise[k] for k in index.tolist()])
        timesteps = batch.timesteps[index.to(batch.timesteps.device)]
        schedule = self.denoiser.alphas_cumprod
        return add_noise(schedule, batch.latents(index), noise, timesteps), timesteps

    def _errors(self, prediction: Tensor, wanted: Tensor, timesteps: Tensor) -> Tensor:
        """Weighted mean square errors (G,) of predictions (G, 4, h, w)."""
        errors = (prediction.float() - wanted).square().flatten(1).mean(dim=1)
        return errors * self.weights[timesteps.cpu()].to(errors)


def _deltas(projection: Projection) -> Mapping[str, LinearDelta]:
    change = projection.cross_attention
    return {} if change is None else change.deltas


def _split(
    parameters: Mapping[str, Tensor], current: Projection
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters of the weight deltas, and those that the prompt embeddings depend on."""
    change = current.cross_attention
    inside = set() if change is None else {id(tensor) for tensor in change.tensors().values()}
    deltas = {name: value for name, value in parameters.items() if id(value) in inside}
    return deltas, {name: value for name, value in parameters.items() if name not in deltas}


def _gradients_of(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a scalar for each parameter, 0 where the scalar does not depend on it."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(parameters.items(), found, strict=True)
    }
