"""What training is to leave as it was, texts and pictures: laws and oracles on a toy denoiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    EncodedPrompts,
    ImageToPromptError,
    Trainer,
    TrainingConfig,
    phrases,
    refine,
)
from image_to_prompt.projection.diffusion.denoiser import (
    add_noise,
    min_snr_weight,
    picture_weight,
    signal,
    target,
    timestep_density,
)
from image_to_prompt.projection.diffusion.loss import Regularizers, gradients, kept_loss
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SETTINGS = TrainingConfig(
    0.05, cross_attention=1.0, cross_rank=2, levels=4, snr_limit=5.0, keep=3, keep_weight=2.0
)


def trainer(settings=SETTINGS, texts=None, chunk=0, count=2):
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(count),
        toys.null(),
        settings,
        0,
        chunk=chunk,
        texts=texts or toys.texts(),
    )


def moved(run):
    with torch.no_grad():
        for index, value in enumerate(run.trainable.values.values()):
            value.add_(0.05 * builders.normal(*value.shape, seed=index))
    return run


def written_out(run, kept):
    """Mean square error to the untrained model's prediction, pair by pair, from the definition."""
    plain, total = builders.small_projection(), 0.0
    deltas, batch = run.trainable.live.cross_attention.deltas, kept.batch
    for pair in range(len(batch)):
        picture = batch.pictures[int(batch.owner[pair])]
        e = plain.apply(run.pictures.embeds[picture : picture + 1])[0]
        states, eos = run.texts.states[int(kept.which[pair])], run.texts.eos[int(kept.which[pair])]
        rows = [states[k] if k < eos else e + kept.weights[pair] * states[k] for k in range(77)]
        context = torch.stack(rows)[None]
        times = batch.times[pair : pair + 1]
        latents, noise = run.pictures.latents[picture][None], batch.noise[pair][None]
        noisy = add_noise(run.denoiser.alphas_cumprod, latents, noise, times)
        before = run.denoiser.predict(noisy, times, context, {}).detach()
        now = run.denoiser.predict(noisy, times, context, deltas)
        total = total + (now - before).square().mean()
    return total


def test_at_the_start_there_is_nothing_to_keep_bit_for_bit():
    run = trainer()
    kept = run._keeping().texts
    embeddings = run.trainable.live.apply(run.pictures.embeds[kept.batch.pictures])
    assert float(kept_loss(run, kept, torch.arange(3), embeddings).detach()) == 0.0


@pytest.mark.parametrize("chunk", [0, 2])
def test_its_gradient_is_that_of_the_definition(chunk):
    run = moved(trainer(chunk=chunk))
    batch, kept = run._batch(), run._keeping().texts
    assert len(kept.batch) == 3 and len(batch) == 4
    loss, slopes = gradients(run, batch, Regularizers(kept))
    alone, before = gradients(run, batch)
    assert loss == alone
    values = {n: v for n, v in run.trainable.values.items() if n.endswith(".up")}
    wanted = torch.autograd.grad(2.0 * written_out(run, kept) / len(batch), list(values.values()))
    for name, slope in zip(values, wanted, strict=True):
        assert slope.norm() > 0
        assert (slopes[name] - before[name] - slope).norm() < 1e-3 * slope.norm(), name


def test_texts_keep_more_of_their_say():
    kept, plain = trainer(), trainer(replace(SETTINGS, keep=0))
    pairs = kept._keeping().texts
    lost = []
    for run in (kept, plain):
        list(refine(run, 30))
        lost.append(float(written_out(run, pairs).detach()))
    assert lost[0] < 0.7 * lost[1]


def test_the_pictures_see_the_same_noise_with_and_without_texts():
    runs = [trainer(), trainer(replace(SETTINGS, keep=0))]
    a, b = (run._batch() for run in runs)
    assert torch.equal(a.times, b.times)
    assert all(torch.equal(x, y) for x, y in zip(a.noise, b.noise, strict=True))
    assert runs[1]._keeping().texts is None


def test_every_step_draws_other_texts_and_a_seed_the_same_ones():
    run = trainer()
    first = run._keeping().texts
    assert torch.equal(first.weights, trainer()._keeping().texts.weights)
    run.step()
    assert not torch.equal(first.weights, run._keeping().texts.weights)
    assert float(first.weights.min()) >= 0.4 and float(first.weights.max()) <= 1.3


def test_a_start_with_changes_of_its_own_is_what_is_kept():
    first = moved(trainer()).result()
    run = Trainer(
        toys.ToyDenoiser(), first, toys.pictures(2), toys.null(), SETTINGS, 0, texts=toys.texts()
    )
    kept = run._keeping().texts
    embeddings = run.trainable.live.apply(run.pictures.embeds[kept.batch.pictures])
    assert float(kept_loss(run, kept, torch.arange(3), embeddings).detach()) == 0.0


@pytest.mark.parametrize("texts", [None, EncodedPrompts(torch.ones(1, 77, 16), (3,))])
def test_a_recipe_that_keeps_texts_wants_fitting_ones(texts):
    with pytest.raises(ImageToPromptError, match="texts to keep, as states of width 32"):
        Trainer(
            toys.ToyDenoiser(),
            builders.small_projection(),
            toys.pictures(),
            toys.null(),
            SETTINGS,
            0,
            texts=texts,
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


# --- which noise levels are drawn, and how much they count ---------------------------------------

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
    kept, added = signal(SCHEDULE, times)
    clean = (noisy - added * out) / kept if prediction == "epsilon" else kept * noisy - added * out
    error = (clean - latents).square().flatten(1).mean(dim=1)
    weights = picture_weight(prediction, SCHEDULE, 1e6)[times]
    assert torch.allclose(weights * wrong.square().flatten(1).mean(dim=1), error, rtol=1e-3)


def test_the_noisiest_steps_count_no_more_than_the_limit():
    weights = picture_weight("epsilon", SCHEDULE, 30.0)
    assert float(weights.max()) == pytest.approx(30.0)
    assert torch.equal(picture_weight("epsilon", SCHEDULE, 0.0), torch.ones(1000))


def test_weights_have_a_mean_of_one_over_a_run():
    run = trainer(replace(SETTINGS, layout=30.0, uniform=0.5))
    assert float((run.loss_weights * run.density).sum()) == pytest.approx(1.0)


# --- pictures that are to stay as they are -------------------------------------------------------

PRIOR = replace(SETTINGS, keep=0, prior=4, prior_weight=1.5)


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
    plain, live, total = builders.small_projection(), run.trainable.live, 0.0
    change, batch = live.cross_attention, kept.batch
    for pair in range(len(batch)):
        picture = batch.pictures[int(batch.owner[pair])]
        embeds = run.prior.embeds[picture : picture + 1]
        noise, times = batch.noise[pair][None], batch.times[pair : pair + 1]
        latents = run.prior.latents[picture][None]
        noisy = add_noise(run.denoiser.alphas_cumprod, latents, noise, times)
        said = []
        for projection, deltas in ((plain, {}), (live, change.deltas if change else {})):
            e = projection.apply(embeds)
            context = torch.cat([toys.null()[:, :1], e[None].expand(1, 76, -1)], dim=1)
            said.append(run.denoiser.predict(noisy, times, context, deltas))
        total = total + (said[1] - said[0].detach()).square().mean()
    return total


@pytest.mark.parametrize("embedding", [0.0, 1.0])
def test_the_gradient_of_other_pictures_is_that_of_the_definition(embedding):
    run = moved(with_prior(replace(PRIOR, embedding=embedding, residual_rank=2)))
    batch, kept = run._batch(), run._keeping().pictures
    loss, slopes = gradients(run, batch, Regularizers(pictures=kept))
    alone, before = gradients(run, batch)
    assert loss == alone
    names = [n for n in slopes if not n.startswith("cross-attention") or n.endswith(".up")]
    wanted = torch.autograd.grad(
        1.5 * drift(run, kept) / len(batch), [run.trainable.values[n] for n in names]
    )
    assert bool(embedding) == ("residual.shift" in names)
    for name, slope in zip(names, wanted, strict=True):
        assert slope.norm() > 0
        assert (slopes[name] - before[name] - slope).norm() < 2e-3 * slope.norm(), name


def test_other_pictures_stay_more_as_they_were():
    # The free one has them too, to measure on, but its steps do not.
    held, free = (with_prior(replace(PRIOR, prior_weight=w)) for w in (6.0, 0.0))
    pairs, lost = held._keeping().pictures, []
    for run in (held, free):
        list(refine(run, 30))
        lost.append(float(drift(run, pairs).detach()))
    assert lost[0] < 0.7 * lost[1]


def test_no_other_pictures_are_no_error_and_change_nothing():
    runs = [with_prior(prior=False), with_prior(replace(PRIOR, prior=0))]
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
