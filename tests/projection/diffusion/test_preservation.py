"""Prompt and prior preservation: laws and oracles on a toy denoiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    EncodedPrompts,
    ImageToPromptError,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    ResidualConfig,
    Trainer,
    TrainingConfig,
    phrases,
    refine,
)
from image_to_prompt.projection.diffusion.denoiser import (
    add_noise,
)
from image_to_prompt.projection.diffusion.preservation import Regularizers
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SETTINGS = TrainingConfig(
    0.05,
    lora=LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=4, sampling_min_snr_gamma=5.0),
    preservation=PreservationConfig(preserve_pairs=3, preserve_weight=2.0),
)


def trainer(settings=SETTINGS, texts=None, micro_batch_size=0, count=2):
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(count),
        toys.null(),
        settings,
        0,
        micro_batch_size=micro_batch_size,
        prompts=texts or toys.texts(),
    )


def preservation_loss(run, kept, index, embeddings):
    initial, current = run.parameters.initial, run.parameters.current
    return run.loss.preservation_loss(initial, current, kept, index, embeddings)


def moved(run):
    with torch.no_grad():
        for index, value in enumerate(run.parameters.values.values()):
            value.add_(0.05 * builders.normal(*value.shape, seed=index))
    return run


def written_out(run, kept):
    """Mean square error to the untrained model's prediction, pair by pair, from the definition."""
    plain, total = builders.small_projection(), 0.0
    deltas, batch = run.parameters.current.cross_attention.deltas, kept.batch
    for pair in range(len(batch)):
        picture = batch.images[int(batch.image_index[pair])]
        e = plain.apply(run.images.embeds[picture : picture + 1])[0]
        text, prompts = int(kept.text_index[pair]), run.sampler.prompts
        states, eos = prompts.states[text], prompts.eos[text]
        rows = [
            states[k] if k < eos else e + kept.text_weights[pair] * states[k] for k in range(77)
        ]
        context = torch.stack(rows)[None]
        times = batch.timesteps[pair : pair + 1]
        latents, noise = run.images.latents[picture][None], batch.noise[pair][None]
        noisy = add_noise(run.denoiser.alphas_cumprod, latents, noise, times)
        before = run.denoiser.predict(noisy, times, context, {}).detach()
        now = run.denoiser.predict(noisy, times, context, deltas)
        total = total + (now - before).square().mean()
    return total


def test_at_the_start_the_preservation_loss_is_zero_bit_for_bit():
    run = trainer()
    kept = run.regularizers().prompts
    embeddings = run.parameters.current.apply(run.images.embeds[kept.batch.images])
    assert float(preservation_loss(run, kept, torch.arange(3), embeddings).detach()) == 0.0


@pytest.mark.parametrize("chunk", [0, 2])
def test_its_gradient_is_that_of_the_definition(chunk):
    run = moved(trainer(micro_batch_size=chunk))
    batch, kept = run.sampler.batch(run.steps_done), run.regularizers().prompts
    assert len(kept.batch) == 3 and len(batch) == 4
    loss, grads = toys.gradients(run, batch, Regularizers(kept))
    alone, before = toys.gradients(run, batch)
    assert loss == alone
    values = {n: v for n, v in run.parameters.values.items() if n.endswith(".up")}
    wanted = torch.autograd.grad(2.0 * written_out(run, kept) / len(batch), list(values.values()))
    for name, grad in zip(values, wanted, strict=True):
        assert grad.norm() > 0
        assert (grads[name] - before[name] - grad).norm() < 1e-3 * grad.norm(), name


def test_prompt_preservation_keeps_predictions_nearer_to_the_teachers():
    kept, plain = trainer(), trainer(toys.changed(SETTINGS, preserve_pairs=0))
    pairs = kept.regularizers().prompts
    lost = []
    for run in (kept, plain):
        list(refine(run, 30))
        lost.append(float(written_out(run, pairs).detach()))
    assert lost[0] < 0.7 * lost[1]


def test_the_pictures_see_the_same_noise_with_and_without_texts():
    runs = [trainer(), trainer(toys.changed(SETTINGS, preserve_pairs=0))]
    a, b = (run.sampler.batch(run.steps_done) for run in runs)
    assert torch.equal(a.timesteps, b.timesteps)
    assert all(torch.equal(x, y) for x, y in zip(a.noise, b.noise, strict=True))
    assert runs[1].regularizers().prompts is None


def test_every_step_draws_other_texts_and_a_seed_the_same_ones():
    run = trainer()
    first = run.regularizers().prompts
    assert torch.equal(first.text_weights, trainer().regularizers().prompts.text_weights)
    run.step()
    assert not torch.equal(first.text_weights, run.regularizers().prompts.text_weights)
    assert float(first.text_weights.min()) >= 0.4 and float(first.text_weights.max()) <= 1.3


def test_the_teacher_has_the_deltas_that_training_starts_from():
    first = moved(trainer()).result()
    run = Trainer(
        toys.ToyDenoiser(), first, toys.pictures(2), toys.null(), SETTINGS, 0, prompts=toys.texts()
    )
    kept = run.regularizers().prompts
    embeddings = run.parameters.current.apply(run.images.embeds[kept.batch.images])
    assert float(preservation_loss(run, kept, torch.arange(3), embeddings).detach()) == 0.0


@pytest.mark.parametrize("texts", [None, EncodedPrompts(torch.ones(1, 77, 16), (3,))])
def test_prompt_preservation_needs_fitting_prompts(texts):
    with pytest.raises(ImageToPromptError, match=r"prompts to preserve, as states of width 32"):
        Trainer(
            toys.ToyDenoiser(),
            builders.small_projection(),
            toys.pictures(),
            toys.null(),
            SETTINGS,
            0,
            prompts=texts,
        )


@pytest.mark.parametrize(
    "states, eos",
    [
        (torch.ones(2, 77, 8), (3,)),
        (torch.ones(0, 77, 8), ()),
        (torch.ones(1, 76, 8), (3,)),
        (torch.ones(1, 77, 8), (0,)),
        (torch.ones(1, 77, 8), (77,)),
        (torch.full((1, 77, 8), torch.nan), (3,)),
    ],
)
def test_texts_that_do_not_fit_are_named(states, eos):
    with pytest.raises(ImageToPromptError, match="text states"):
        EncodedPrompts(states, eos)


def test_phrases_are_short_different_and_the_same_for_a_seed():
    found = phrases(64)
    assert found == phrases(64) and len(set(found)) == 64
    assert all(2 <= len(text.split()) <= 6 and text.split()[0] in ("a", "an") for text in found)
    assert found != phrases(64, seed=1)
    for count in (0, 1001):
        with pytest.raises(ImageToPromptError, match="1 to 1000 phrases"):
            phrases(count)


# --- prior preservation --------------------------------------------------------------------------

PRIOR = toys.changed(SETTINGS, preserve_pairs=0, prior_batch_size=4, prior_loss_weight=1.5)


def with_prior(settings=PRIOR, prior=True):
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(2),
        toys.null(),
        settings,
        0,
        prior=toys.pictures(3, seed=300) if prior else None,
    )


def drift(run, kept):
    """Mean square error to the untrained model on kept pictures, from the definition."""
    plain, live, total = builders.small_projection(), run.parameters.current, 0.0
    change, batch = live.cross_attention, kept.batch
    for pair in range(len(batch)):
        picture = batch.images[int(batch.image_index[pair])]
        embeds = run.sampler.prior.embeds[picture : picture + 1]
        noise, times = batch.noise[pair][None], batch.timesteps[pair : pair + 1]
        latents = run.sampler.prior.latents[picture][None]
        noisy = add_noise(run.denoiser.alphas_cumprod, latents, noise, times)
        predictions = []
        for projection, deltas in ((plain, {}), (live, change.deltas if change else {})):
            e = projection.apply(embeds)
            context = torch.cat([toys.null()[:, :1], e[None].expand(1, 76, -1)], dim=1)
            predictions.append(run.denoiser.predict(noisy, times, context, deltas))
        total = total + (predictions[1] - predictions[0].detach()).square().mean()
    return total


@pytest.mark.parametrize("residual", [None, ResidualConfig(2)])
def test_the_gradient_of_other_pictures_is_that_of_the_definition(residual):
    run = moved(with_prior(replace(PRIOR, residual=residual)))
    batch, kept = run.sampler.batch(run.steps_done), run.regularizers().prior
    loss, grads = toys.gradients(run, batch, Regularizers(prior=kept))
    alone, before = toys.gradients(run, batch)
    assert loss == alone
    names = [n for n in grads if not n.startswith("cross-attention") or n.endswith(".up")]
    wanted = torch.autograd.grad(
        1.5 * drift(run, kept) / len(batch), [run.parameters.values[n] for n in names]
    )
    assert bool(residual) == ("residual.shift" in names)
    for name, grad in zip(names, wanted, strict=True):
        assert grad.norm() > 0
        assert (grads[name] - before[name] - grad).norm() < 2e-3 * grad.norm(), name


def test_other_pictures_stay_more_as_they_were():
    # The free one has them too, to measure on, but its steps do not.
    held, free = (with_prior(toys.changed(PRIOR, prior_loss_weight=w)) for w in (6.0, 0.0))
    pairs, lost = held.regularizers().prior, []
    for run in (held, free):
        list(refine(run, 30))
        lost.append(float(drift(run, pairs).detach()))
    assert lost[0] < 0.7 * lost[1]


def test_no_other_pictures_are_no_error_and_change_nothing():
    runs = [with_prior(prior=False), with_prior(toys.changed(PRIOR, prior_batch_size=0))]
    losses = [[progress.loss for progress in refine(run, 3)] for run in runs]
    assert losses[0] == losses[1]


def test_other_pictures_of_another_width_are_an_error():
    seen = toys.pictures(2)
    wrong = type(seen)(seen.latents, torch.ones(2, 8))
    with pytest.raises(ImageToPromptError, match="image embeddings of width 32"):
        Trainer(
            toys.ToyDenoiser(),
            builders.small_projection(),
            seen,
            toys.null(),
            PRIOR,
            0,
            prior=wrong,
        )
