"""The trainer's laws on a toy denoiser: nothing at zero steps, the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    FIT,
    REFINE,
    ImageToPromptError,
    LoRAConfig,
    NoiseConfig,
    ResidualConfig,
    Trainer,
    TrainingConfig,
    TrainingImages,
    TransformersTower,
    fit,
    refine,
    training_config,
)
from image_to_prompt.projection.state_dict import adapter_state_dict
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

BOTH = TrainingConfig(
    1e-2,
    ResidualConfig(rank=2),
    LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=4),
)
EVERY = [("refine", name) for name in REFINE] + [("fit", name) for name in FIT]


def trainer(settings=BOTH, seed=0, count=3, projection=None, denoiser=None, **more):
    projection = projection or builders.small_projection()
    return Trainer(
        denoiser or toys.ToyDenoiser(),
        projection,
        toys.pictures(count),
        toys.null(),
        settings,
        seed,
        **more,
    )


def with_vision(settings, **more):
    clip = toys.tiny_clip()
    tower = TransformersTower(clip)
    seen = replace(toys.pictures(), pixels=toys.pixels())
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        seen,
        toys.null(),
        settings,
        0,
        tower=tower,
        prompts=toys.texts(),
        **more,
    )


def same(a, b):
    mine, theirs = adapter_state_dict(a), adapter_state_dict(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("kind, name", EVERY)
def test_zero_steps_are_the_closed_form_bit_for_bit(kind, name):
    pytest.importorskip("transformers")
    plain = builders.small_projection()
    fresh = with_vision((REFINE if kind == "refine" else FIT)[name]).current()
    embeds = builders.normal(5, 32, seed=1)
    assert torch.equal(fresh.apply(embeds), plain.apply(embeds))
    assert fresh.vision is None or not fresh.vision.gates.any()
    deltas = fresh.cross_attention.deltas.values() if fresh.cross_attention else []
    assert not any(delta.weight().any() for delta in deltas)


@pytest.mark.parametrize("kind, name", EVERY)
def test_every_preset_learns_a_batch_by_heart(kind, name):
    pytest.importorskip("transformers")
    run = with_vision((REFINE if kind == "refine" else FIT)[name])
    held = Trainer(
        run.denoiser,
        builders.small_projection(),
        run.images,
        toys.null(),
        run.config,
        0,
        held_out=run.images,
        tower=run.loss.tower,
        prompts=toys.texts(),
    )
    before = held.validate()
    list(refine(held, 40))
    assert held.validate() < before
    parts = (held.config.residual, held.config.lora, held.config.deep_prompts)
    result = held.result()
    found = (result.residual, result.cross_attention, result.vision)
    assert [part is not None for part in parts] == [adapter is not None for adapter in found]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    runs = [trainer(seed=seed) for seed in (3, 3, 4)]
    losses = [[progress.loss for progress in refine(run, 4)] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert same(runs[0].result(), runs[1].result())
    assert not same(runs[0].result(), runs[2].result())


def test_global_randomness_is_neither_used_nor_moved():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a = trainer()
    list(refine(a, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    b = trainer()
    list(refine(b, 2))
    assert same(a.result(), b.result())


def test_a_refined_projection_goes_on_from_where_it_is():
    once = trainer()
    list(refine(once, 3))
    first = once.result()
    again = trainer(projection=first)
    assert same(again.current(), first)
    list(refine(again, 1))
    assert not same(again.current(), first)


def test_nothing_that_was_given_is_changed_and_no_gradient_is_left():
    denoiser, seen = toys.ToyDenoiser(), toys.pictures()
    for weight in denoiser.weights.values():
        weight.requires_grad_(True)
    given = [*denoiser.weights.values(), *seen.latents, seen.embeds]
    before = [tensor.detach().clone() for tensor in given]
    run = Trainer(denoiser, builders.small_projection(), seen, toys.null(), BOTH, 0)
    list(refine(run, 3))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert all(tensor.grad is None for tensor in given)
    assert not any(tensor.requires_grad for tensor in adapter_state_dict(run.result()).values())


def test_inference_mode_around_it_changes_nothing():
    outside, denoiser = trainer(), toys.ToyDenoiser()
    list(refine(outside, 3))
    with torch.inference_mode():
        plain = builders.small_projection()
        given = {n: getattr(plain, n).clone() for n in ("matrix", "singular_values")}
        seen = toys.pictures()  # tensors made here cannot take part in autograd
        assert seen.embeds.is_inference()
        inside = Trainer(denoiser, replace(plain, **given), seen, toys.null(), BOTH, 0)
        list(refine(inside, 3))
        result = inside.result()
    assert outside.losses == inside.losses
    assert same(result, outside.result())
    assert not any(tensor.is_inference() for tensor in adapter_state_dict(result).values())


def test_a_step_in_chunks_is_the_same_step():
    whole, chunked = trainer(), trainer(micro_batch_size=3)
    a, b = [p.loss for p in refine(whole, 3)], [p.loss for p in refine(chunked, 3)]
    assert max(chunked.denoiser.seen) == 3 < max(whole.denoiser.seen)
    assert a == pytest.approx(b, rel=1e-4)


def test_pictures_of_several_sizes_are_trained_together():
    small, large = toys.pictures(2), toys.pictures(2, seed=71, size=(6, 4))
    mixed = TrainingImages(small.latents + large.latents, torch.cat([small.embeds, large.embeds]))
    settings = replace(BOTH, batch_size=4)
    run = Trainer(toys.ToyDenoiser(), builders.small_projection(), mixed, toys.null(), settings, 0)
    list(refine(run, 2))
    assert run.denoiser.seen == [8, 8, 8, 8]


def test_the_rate_falls_where_an_end_is_planned():
    steady, falling = trainer(), trainer(schedule_steps=4)
    assert falling.learning_rates() == steady.learning_rates()
    list(refine(falling, 4))
    name = next(iter(steady.learning_rates()))
    assert falling.learning_rates()[name] == pytest.approx(0.1 * steady.learning_rates()[name])


def test_a_pull_keeps_the_prompt_nearer_to_the_closed_form():
    embeds = toys.pictures().embeds
    plain = builders.small_projection().apply(embeds)

    def away(pull):
        run = trainer(replace(BOTH, learning_rate=3e-3, lora=None, anchor_weight=pull))
        list(refine(run, 60))
        return float((run.result().apply(embeds) - plain).norm())

    assert away(100.0) < 0.6 * away(0.0)


def test_dropped_prompts_train_no_embedding():
    run = trainer(replace(BOTH, condition_dropout=1.0))
    list(refine(run, 2))
    result = run.result()
    assert not result.residual.shift.any() and not result.residual.up.any()
    assert any(delta.weight().any() for delta in result.cross_attention.deltas.values())


# --- held-out pictures ------------------------------------------------------------------------


def test_the_best_is_kept_and_not_the_last():
    run = trainer(replace(BOTH, learning_rate=0.9), held_out=toys.pictures(2, seed=200))
    steps = list(fit(run, epochs=30, patience=3))
    losses = [loss for _, loss in run.held_out_losses]
    assert losses[0] == min(losses)  # this rate only does harm
    assert torch.equal(
        run.result().apply(run.images.embeds),
        builders.small_projection().apply(run.images.embeds),
    )
    assert not same(run.result(), run.current())
    assert len(steps) == 3 * run.steps_per_epoch  # and patience ends it
    assert [p.held_out is not None for p in steps[:3]] == [False, False, True]


def test_without_held_out_pictures_every_epoch_is_taken():
    run = trainer(count=3)
    assert len(list(fit(run, epochs=2))) == 6
    assert same(run.result(), run.current())
    with pytest.raises(ImageToPromptError, match="held-out"):
        run.validate()


def test_looking_at_held_out_pictures_does_not_change_training():
    alone, judged = trainer(), trainer(held_out=toys.pictures(2, seed=200))
    list(fit(alone, epochs=2))
    list(fit(judged, epochs=2))
    assert alone.losses == judged.losses


# --- what does not fit ------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_any_work():
    wide, plain = toys.ToyDenoiser(), builders.small_projection()
    wide.cross_kv_shapes = {name: (24, 64) for name in wide.cross_kv_shapes}
    odd = toys.ToyDenoiser("sample")
    thin = TrainingImages(toys.pictures().latents, torch.zeros(3, 16))
    for denoiser, seen, null, words in (
        (wide, toys.pictures(), toys.null(), "U-Net of an SD 1.x"),
        (odd, toys.pictures(), toys.null(), "predicting sample"),
        (toys.ToyDenoiser(), thin, toys.null(), "Use image embeddings"),
        (toys.ToyDenoiser(), toys.pictures(), toys.null()[..., :16], "text encoder of an SD 1.x"),
    ):
        with pytest.raises(ImageToPromptError, match=words):
            Trainer(denoiser, plain, seen, null, BOTH, 0)
        assert not denoiser.seen
    with pytest.raises(ImageToPromptError, match="pixels"):
        trainer(FIT["full"])
    with pytest.raises(ImageToPromptError, match="trains something"):
        trainer(TrainingConfig(1.0))


def test_pictures_that_cannot_be_trained_on_are_refused():
    good = toys.pictures()
    for latents, embeds in (
        ((), torch.zeros(0, 32)),
        (good.latents[:2], good.embeds),
        ((torch.full((4, 4, 4), torch.nan),), good.embeds[:1]),
    ):
        with pytest.raises(ImageToPromptError, match=r"latents"):
            TrainingImages(latents, embeds)


def test_a_loss_that_is_not_finite_ends_the_run_at_the_last_good_state():
    run = trainer()
    run.step()
    before = run.current()
    run.denoiser.weights = {n: w * torch.nan for n, w in run.denoiser.weights.items()}
    with pytest.raises(ImageToPromptError, match="finite loss"):
        run.step()
    assert same(run.current(), before) and run.steps_done == 1


def test_presets_are_found_by_name_and_rate():
    assert training_config(FIT, "full") is FIT["full"]
    changed = training_config(REFINE, "embedding", 0.5)
    assert changed == replace(REFINE["embedding"], learning_rate=0.5)
    with pytest.raises(ImageToPromptError, match="embedding"):
        training_config(REFINE, "no such preset")
    for rate in (-1.0, 2.0, float("nan")):
        with pytest.raises(ImageToPromptError, match="learning rate"):
            training_config(REFINE, "embedding", rate)
