"""Oracles for training: the loss and its gradient written out, AdamW, diffusers' noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss

from image_to_prompt.projection import (
    LoRAConfig,
    NoiseConfig,
    ResidualConfig,
    Trainer,
    TrainingConfig,
)
from image_to_prompt.projection.data.batches import (
    batch_of,
    epoch_batch,
    generator_of,
    held_out_batches,
)
from image_to_prompt.projection.diffusion.denoiser import add_noise, min_snr_weight, target
from image_to_prompt.projection.training.adamw import AdamW
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SETTINGS = TrainingConfig(
    1e-2,
    ResidualConfig(rank=2),
    LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=3, sampling_min_snr_gamma=5.0),
    batch_size=2,
    condition_dropout=0.4,
    anchor_weight=0.3,
)


def run(settings=SETTINGS, prediction="epsilon", micro_batch_size=0):
    trainer = Trainer(
        toys.ToyDenoiser(prediction),
        builders.small_projection(),
        toys.pictures(),
        toys.null(),
        settings,
        0,
        micro_batch_size=micro_batch_size,
    )
    with torch.no_grad():  # away from zero, where most gradients vanish
        for index, value in enumerate(trainer.parameters.values.values()):
            value.add_(0.05 * builders.normal(*value.shape, seed=index))
    return trainer


def moving(trainer):
    """What is trained: all but A of the deltas of cross-attentions."""
    return {
        name: value
        for name, value in trainer.parameters.values.items()
        if not name.startswith("cross-attention") or not name.endswith(".down")
    }


def written_out(trainer, batch, drop):
    """The loss in one graph: pair by pair, from the definitions. Returns (loss, pull term)."""
    values, plain = trainer.parameters.values, builders.small_projection()
    schedule, total, pull = trainer.denoiser.alphas_cumprod, 0.0, 0.0
    prompts = []
    for index in batch.images:
        closed = plain.apply(trainer.images.embeds[index : index + 1])[0]
        n = closed / closed.norm()
        down, up = values["residual.down"], values["residual.up"]
        moved = n + up @ (down @ n) + values["residual.shift"]
        prompts.append(plain.norm * moved / moved.norm())
        pull = pull + (1 - torch.dot(n, moved / moved.norm())) / len(batch.images)
    deltas = {}
    for name in trainer.denoiser.cross_kv_shapes:
        down, up = (values[f"cross-attention.{name}.{leaf}"] for leaf in ("down", "up"))
        deltas[name] = lambda context, both=up @ down: context @ both.T
    for pair, owner in enumerate(batch.image_index.tolist()):
        a = float(schedule[batch.timesteps[pair]])
        x, noise = trainer.images.latents[batch.images[owner]], batch.noise[pair]
        context = torch.cat(
            [trainer.loss.form.null.states[:, :1], prompts[owner].expand(1, 76, -1)], dim=1
        )
        if batch.dropout_u[pair] < drop:
            context = trainer.loss.form.null.states
        noisy = a**0.5 * x + (1 - a) ** 0.5 * noise
        times = batch.timesteps[pair : pair + 1]
        out = trainer.denoiser.predict(noisy[None], times, context, deltas)[0]
        is_v = trainer.denoiser.prediction_type == "v"
        wanted = a**0.5 * noise - (1 - a) ** 0.5 * x if is_v else noise
        total = total + mse_loss(out, wanted) / len(batch)
    return total, pull


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("chunk", [0, 4])
def test_loss_and_gradient_are_those_of_the_definition(prediction, chunk):
    trainer = run(prediction=prediction, micro_batch_size=chunk)
    batch = trainer.sampler.batch(trainer.steps_done)
    assert 0 < int((batch.dropout_u < 0.4).sum()) < len(batch) == 6
    loss, grads = toys.gradients(trainer, batch)
    expected, pull = written_out(trainer, batch, drop=0.4)
    wanted = torch.autograd.grad(expected + 0.3 * pull, list(moving(trainer).values()))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    assert grads.keys() == moving(trainer).keys() != trainer.parameters.values.keys()
    for (name, value), grad in zip(moving(trainer).items(), wanted, strict=True):
        assert value.shape == grads[name].shape
        assert grad.norm() > 0
        assert (grads[name] - grad).norm() < 1e-3 * grad.norm(), name


def test_the_held_out_loss_drops_no_prompt():
    trainer = run()
    batch = trainer.sampler.batch(trainer.steps_done)
    expected, _ = written_out(trainer, batch, drop=0.0)
    got = float(trainer.loss.value(trainer.parameters.current, batch).detach())
    assert got == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_torchs_adamw(decay):
    mine = {"a": builders.normal(3, 4, seed=1), "b": builders.normal(5, seed=2)}
    theirs = {name: value.clone().requires_grad_(True) for name, value in mine.items()}
    rates = {"a": 0.01, "b": 0.1}
    groups = [{"params": [theirs[n]], "lr": rate} for n, rate in rates.items()]
    other = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    adam = AdamW(mine)
    for step in range(5):
        grads = {n: builders.normal(*v.shape, seed=10 + step) for n, v in mine.items()}
        for name, value in theirs.items():
            value.grad = grads[name].clone()
        other.step()
        adam.update(mine, grads, rates, decay)
        for name, value in theirs.items():
            assert torch.allclose(mine[name], value.detach(), atol=1e-6)


# --- noise ------------------------------------------------------------------------------------


def test_noise_and_targets_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    other = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    times = torch.tensor([0, 7, 500, 999])
    latents, noise = builders.normal(4, 4, 6, 6, seed=1), builders.normal(4, 4, 6, 6, seed=2)
    schedule = other.alphas_cumprod
    noisy = add_noise(schedule, latents, noise, times)
    assert torch.allclose(noisy, other.add_noise(latents, noise, times), atol=1e-6)
    velocity = target("v", schedule, latents, noise, times)
    assert torch.allclose(velocity, other.get_velocity(latents, noise, times), atol=1e-6)
    assert target("epsilon", schedule, latents, noise, times) is noise


def test_min_snr_weights_are_those_of_diffusers_training_scripts():
    training = pytest.importorskip("diffusers.training_utils")
    scheduler = pytest.importorskip("diffusers").DDPMScheduler()
    times = torch.arange(0, 1000, 37)
    snr = training.compute_snr(scheduler, times)
    clipped = torch.minimum(snr, torch.tensor(5.0))
    schedule = scheduler.alphas_cumprod
    assert torch.allclose(min_snr_weight("epsilon", schedule, 5.0)[times], clipped / snr, rtol=1e-4)
    assert torch.allclose(min_snr_weight("v", schedule, 5.0)[times], clipped / (snr + 1), rtol=1e-4)
    assert torch.equal(min_snr_weight("v", schedule, 0.0), torch.ones(1000))


def test_a_schedule_that_ends_in_pure_noise_has_finite_weights():
    schedule = torch.tensor([1.0, 0.5, 0.0])
    for kind in ("epsilon", "v"):
        assert min_snr_weight(kind, schedule, 5.0).isfinite().all()


# --- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count, size", [(7, 3), (6, 3), (1, 4), (5, 1)])
def test_an_epoch_shows_every_picture_once(count, size):
    steps = -(-count // size)
    epochs = [
        [k for s in range(e * steps, e * steps + steps) for k in epoch_batch(count, size, s, 5)]
        for e in range(4)
    ]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 4 or len({tuple(epoch) for epoch in epochs}) > 1


def test_noise_levels_are_spread_evenly_over_the_schedule():
    source = toys.pictures(2)
    for seed in range(20):
        batch = batch_of(source, [1, 0], 5, torch.ones(1000), generator_of(seed, 0))
        assert (batch.timesteps // 100).tolist() == list(range(10))
        assert batch.image_index.tolist() == [0, 1] * 5
        assert batch.latents(torch.tensor([0]))[0] is not source.latents[1]
        assert torch.equal(batch.latents(torch.tensor([0]))[0], source.latents[1])


def test_noise_levels_are_drawn_as_often_as_they_count():
    weights = torch.tensor([1.0, 0.0, 6.0, 3.0])
    times = batch_of(toys.pictures(1), [0], 4000, weights, generator_of(0, 0)).timesteps
    assert torch.allclose(times.bincount(minlength=4) / 4000, weights / 10, atol=1e-3)


def test_the_trainer_draws_by_its_min_snr_weights():
    trainer = run()
    schedule = trainer.denoiser.alphas_cumprod
    weights = min_snr_weight("epsilon", schedule, 5.0)
    assert torch.allclose(trainer.sampler.density, weights / weights.sum())
    assert torch.allclose(trainer.loss.weights, torch.ones(1000))


def test_streams_of_randomness_are_apart():
    draws = {
        float(torch.rand(1, generator=generator_of(seed, stream)))
        for seed in range(20)
        for stream in range(-1, 19)
    }
    assert len(draws) == 400


def test_the_held_out_pairs_are_the_same_every_time():
    source = toys.pictures(2)
    a, b = (list(held_out_batches(source, torch.ones(1000), seed)) for seed in (1, 1))
    other = next(held_out_batches(source, torch.ones(1000), 2))
    assert [batch.images for batch in a] == [[0], [1]]
    assert all(torch.equal(x.noise[3], y.noise[3]) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(x.timesteps, y.timesteps) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0].noise[0], other.noise[0])


def test_one_map_and_one_embedding_can_be_trained_apart():
    for off in ("residual", "lora"):
        trainer = run(replace(SETTINGS, **{off: None}, condition_dropout=0.0))
        grads = toys.gradients(trainer, trainer.sampler.batch(0))[1]
        assert grads.keys() == moving(trainer).keys()
        assert all(grad.norm() > 0 for grad in grads.values())
