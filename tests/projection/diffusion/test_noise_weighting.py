"""Which time steps are drawn, and how much each weighs in the loss."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import LoRAConfig, NoiseConfig, Trainer, TrainingConfig
from image_to_prompt.projection.diffusion.denoiser import (
    add_noise,
    alpha_sigma,
    loss_weights,
    min_snr_weight,
    target,
    timestep_density,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SCHEDULE = torch.linspace(0.999, 0.005, 1000)


def test_a_share_of_the_noise_levels_is_drawn_evenly():
    plain = min_snr_weight("epsilon", SCHEDULE, 0.1)
    assert torch.allclose(timestep_density("epsilon", SCHEDULE, 0.1, 0.0), plain / plain.sum())
    assert torch.allclose(
        timestep_density("epsilon", SCHEDULE, 0.1, 1.0), torch.full((1000,), 1e-3)
    )
    mixed = timestep_density("epsilon", SCHEDULE, 0.1, 0.25)
    assert torch.allclose(mixed, 0.75 * plain / plain.sum() + 0.25e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_errors_count_as_those_of_the_clean_picture(prediction):
    times = torch.tensor([40, 300, 700])
    latents, noise = (builders.normal(3, 4, 4, 4, seed=s) for s in (1, 2))
    wrong = 0.1 * builders.normal(3, 4, 4, 4, seed=3)
    noisy = add_noise(SCHEDULE, latents, noise, times)
    out = target(prediction, SCHEDULE, latents, noise, times) + wrong
    a, s = alpha_sigma(SCHEDULE, times)
    clean = (noisy - s * out) / a if prediction == "epsilon" else a * noisy - s * out
    error = (clean - latents).square().flatten(1).mean(dim=1)
    weights = 1e6 * min_snr_weight(prediction, SCHEDULE, 1e-6)[times]
    assert torch.allclose(weights * wrong.square().flatten(1).mean(dim=1), error, rtol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_loss_weights_are_min_snr_scaled_to_a_mean_of_one(kind):
    density = timestep_density(kind, SCHEDULE, 0.1, 0.3)
    weights = loss_weights(kind, SCHEDULE, 1 / 30, density)
    plain = min_snr_weight(kind, SCHEDULE, 1 / 30)
    assert torch.allclose(weights, plain / (plain * density).sum(), rtol=1e-5)
    assert not torch.allclose(weights, torch.ones(1000), rtol=0.1)
    assert torch.allclose(loss_weights(kind, SCHEDULE, 0.0, density), torch.ones(1000))


def test_weights_have_a_mean_of_one_over_a_run():
    noise = NoiseConfig(uniform_timestep_fraction=0.5, loss_min_snr_gamma=1 / 30)
    config = TrainingConfig(0.05, lora=LoRAConfig(rank=2), noise=noise)
    projection, seen = builders.small_projection(), toys.pictures(2)
    run = Trainer(toys.ToyDenoiser(), projection, seen, toys.null(), config, 0)
    assert float((run.loss.weights * run.sampler.density).sum()) == pytest.approx(1.0)
