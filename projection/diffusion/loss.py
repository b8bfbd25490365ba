"""The diffusion loss under the picture's own prompt, and its gradient, in pieces that fit.

The prompt embedding is computed once a step. Pairs of picture and noise level go through the
model in chunks; each gives a gradient for the embeddings and for the deltas, and the former are
carried back through the projection (and the image encoder) once at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..adapters.deep_prompts import VisionTower, encode_pictures
from ..data.batches import Batch
from ..errors import ImageToPromptError
from ..projector import Projection
from ..prompt.conditioning import assemble
from ..state_dict import CROSS
from ..training.presets import TrainingConfig
from .denoiser import Denoiser, LinearDelta, add_noise, target
from .preservation import PreservationBatch, PriorPreservation, PromptPreservation


class Values(Protocol):
    """What the loss needs of `TrainableParameters`: tensors by name, and their projection."""

    values: Mapping[str, Tensor]
    start: Projection
    live: Projection


class Run(Protocol):
    """What the loss needs of a `Trainer`."""

    denoiser: Denoiser
    trainable: Values
    recipe: TrainingConfig
    tower: VisionTower | None
    null: Tensor
    loss_weights: Tensor
    chunk: int


@dataclass(frozen=True, eq=False)
class Regularizers:
    """What a step is to leave as it was: texts and other pictures, either or both."""

    texts: PromptPreservation | None = None
    pictures: PriorPreservation | None = None

    def parts(self, recipe: TrainingConfig) -> list[tuple[PreservationBatch, float]]:
        """Those that there are, and how much each pair of them counts."""
        both = ((self.texts, recipe.keep_weight), (self.pictures, recipe.prior_weight))
        return [(kept, weight) for kept, weight in both if kept is not None]


def gradients(
    run: Run, batch: Batch, keeping: Regularizers | None = None
) -> tuple[float, dict[str, Tensor]]:
    """The diffusion loss of a batch, and the gradient of everything for every tensor that moves.

    Everything: the diffusion loss, the pull, and the losses of what is kept, which the number
    that is returned leaves out.
    """
    parts = [] if keeping is None else keeping.parts(run.recipe)
    values = {name: v for name, v in run.trainable.values.items() if v.requires_grad}
    inner = {name: value for name, value in values.items() if name.startswith(CROSS)}
    outer = {name: value for name, value in values.items() if name not in inner}
    embeddings = [embeddings_of(run, part) for part in (batch, *(k.batch for k, _ in parts))]
    leaves = [part.detach().requires_grad_(bool(outer)) for part in embeddings]
    wanted = [*inner.values(), *(leaves if outer else [])]
    sums = [torch.zeros_like(tensor) for tensor in wanted]
    total = 0.0
    for loss, share in _pieces(run, batch, parts, leaves):
        found = torch.autograd.grad(loss, wanted, allow_unused=True)  # a dropped prompt is unused
        sums = [s if g is None else s + g for s, g in zip(sums, found, strict=True)]
        total += share
    slopes = dict(zip(inner, sums, strict=False))
    if outer:
        slopes |= _carry_back(run, batch, embeddings, sums[len(inner) :], outer)
    return total, slopes


def _pieces(
    run: Run, batch: Batch, parts: list[tuple[PreservationBatch, float]], leaves: list[Tensor]
) -> Iterator[tuple[Tensor, float]]:
    """Losses, one graph at a time, and what each adds to the diffusion loss."""
    for index in batch.groups(run.chunk):
        loss = _chunk_loss(run, batch, index, leaves[0], run.recipe.drop)
        yield loss, float(loss.detach())
    for (kept, weight), leaf in zip(parts, leaves[1:], strict=True):
        for index in kept.batch.groups(run.chunk):
            yield weight / len(batch) * kept_loss(run, kept, index, leaf), 0.0


def _carry_back(
    run: Run, batch: Batch, embeddings: list[Tensor], slopes: list[Tensor], outer: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients of what makes embeddings (B, D), given the loss's slopes (B, D) at them.

    The first ones are the batch's, which the pull is about.
    """
    surrogate = sum((e * slope).sum() for e, slope in zip(embeddings, slopes, strict=True))
    if run.recipe.pull:
        plain = run.trainable.start.apply(batch.source.embeds[batch.pictures])
        away = 1 - cosine_similarity(embeddings[0], plain, dim=-1)
        surrogate = surrogate + run.recipe.pull * away.mean()
    found = torch.autograd.grad(surrogate, list(outer.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(outer.items(), found, strict=True)
    }


def loss_of(run: Run, batch: Batch) -> Tensor:
    """The diffusion loss of a batch, a scalar, without dropping any prompt."""
    embeddings = embeddings_of(run, batch)
    parts = [_chunk_loss(run, batch, i, embeddings, 0.0) for i in batch.groups(run.chunk)]
    return torch.stack(parts).sum()


def embeddings_of(run: Run, batch: Batch) -> Tensor:
    """Prompt embeddings (B, D) of the batch's pictures as training stands; differentiable."""
    source, live = batch.source, run.trainable.live
    if run.recipe.vision and run.tower is not None and source.pixels is not None:
        embeds = encode_pictures(run.tower, source.pixels[batch.pictures], live.vision)
    else:
        embeds = source.embeds[batch.pictures]
    return live.apply(embeds)


def _chunk_loss(run: Run, batch: Batch, index: Tensor, embeddings: Tensor, drop: float) -> Tensor:
    """The share of the batch's mean loss that the pairs `index` (G,) have."""
    denoiser = run.denoiser
    latents = batch.latents(index)
    noise = torch.stack([batch.noise[k] for k in index.tolist()])
    times = batch.times[index.to(batch.times.device)]
    context = assemble(run.null[0, 0], embeddings[batch.owner[index].to(embeddings.device)])
    kept = (batch.u[index] >= drop)[:, None, None].to(context.device)
    context = torch.where(kept, context, run.null)
    schedule, kind = denoiser.alphas_cumprod, denoiser.prediction
    prediction = denoiser.predict(
        add_noise(schedule, latents, noise, times), times, context, _deltas(run.trainable.live)
    )
    wanted = target(kind, schedule, latents, noise, times)
    if prediction.shape != wanted.shape:
        raise ImageToPromptError(
            f"a model whose prediction has the latents' shape {tuple(wanted.shape)}",
            f"{tuple(prediction.shape)}",
            "Connect model and VAE of one SD 1.x checkpoint.",
        )
    return _errors(run, prediction, wanted, times).sum() / len(batch)


def kept_loss(run: Run, kept: PreservationBatch, index: Tensor, embeddings: Tensor) -> Tensor:
    """Summed errors of the kept pairs `index` (G,) against what the model said at the start."""
    noisy, times = _noisy(run, kept.batch, index)
    if kept.said is None:
        wanted = said_at_start(run, kept, index)
    else:
        wanted = torch.stack([kept.said[pair] for pair in index.tolist()])
    context = kept.contexts(embeddings, index)
    prediction = run.denoiser.predict(noisy, times, context, _deltas(run.trainable.live))
    return _errors(run, prediction, wanted, times).sum()


def said_at_start(run: Run, kept: PreservationBatch, index: Tensor) -> Tensor:
    """Predictions (G, 4, h, w) float32 for the kept pairs `index` (G,) before any training."""
    batch, start = kept.batch, run.trainable.start
    noisy, times = _noisy(run, batch, index)
    with torch.no_grad():
        plain = start.apply(batch.source.embeds[batch.pictures])
        before = kept.contexts(plain, index)
        return run.denoiser.predict(noisy, times, before, _deltas(start)).float()


def cache_teacher(run: Run, kept: PreservationBatch) -> tuple[Tensor, ...]:
    """The same for every pair, (4, h, w) each, in the order of the pairs."""
    found: dict[int, Tensor] = {}
    for index in kept.batch.groups(run.chunk):
        found |= zip(index.tolist(), said_at_start(run, kept, index), strict=True)
    return tuple(found[pair] for pair in range(len(kept.batch)))


def _noisy(run: Run, batch: Batch, index: Tensor) -> tuple[Tensor, Tensor]:
    """x_t (G, 4, h, w) and times (G,) of the pairs `index` (G,)."""
    noise = torch.stack([batch.noise[k] for k in index.tolist()])
    times = batch.times[index.to(batch.times.device)]
    return add_noise(run.denoiser.alphas_cumprod, batch.latents(index), noise, times), times


def _deltas(projection: Projection) -> Mapping[str, LinearDelta]:
    change = projection.cross_attention
    return {} if change is None else change.deltas


def _errors(run: Run, prediction: Tensor, wanted: Tensor, times: Tensor) -> Tensor:
    """Weighted mean square errors (G,) of predictions (G, 4, h, w)."""
    errors = (prediction.float() - wanted).square().flatten(1).mean(dim=1)
    return errors * run.loss_weights[times.cpu()].to(errors)
