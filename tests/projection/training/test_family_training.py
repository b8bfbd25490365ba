"""Training for a family of two text encoders and a pooled vector. Random weights: wiring only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    EncodedPrompt,
    EncodedPrompts,
    Family,
    ImageToPromptError,
    LoRAConfig,
    NoiseConfig,
    Part,
    PreservationConfig,
    Trainer,
    TrainingConfig,
    fit_readings,
    load_checkpoint,
    load_projection,
    picture_prompt,
    refine,
    save_checkpoint,
    save_projection,
)
from image_to_prompt.projection.checkpoint.run_file import run_fingerprint
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

WIDTHS = {"l": 20, "g": 12}  # together the width of the toy denoiser's context
POOLED = 6
FAMILY = Family(
    "two encoders",
    (Part("l", WIDTHS["l"], 49407, normed=False), Part("g", WIDTHS["g"], 0, normed=False)),
    pooled="g",
    layer=-2,
)
CONFIG = TrainingConfig(
    0.02,
    lora=LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=2),
    preservation=PreservationConfig(preserve_pairs=2),
)


class PooledDenoiser(toys.ToyDenoiser):
    """The toy with a pooled vector that is added to the context's first numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.given = []

    def predict(self, noisy, timesteps, context, deltas, pooled):
        self.given.append((context.detach(), pooled.detach()))
        shift = torch.nn.functional.pad(pooled, (0, toys.WIDTH - POOLED))[:, None]
        return super().predict(noisy, timesteps, context + shift, deltas)


def projection(seed: int = 0):
    plain = builders.small_projection()
    joint = builders.normal(200, plain.encoder.joint_width, seed=seed)
    states = {}
    for number, name in enumerate(FAMILY.reading_names):
        width = WIDTHS.get(name.partition(".")[0], POOLED)
        states[name] = 3 + joint @ builders.normal(joint.shape[1], width, seed=seed + 1 + number)
    return plain.with_readings(fit_readings(FAMILY, joint, states))


def texts(count: int = 4) -> EncodedPrompts:
    plain = toys.texts(count)
    return EncodedPrompts(plain.states, plain.eos, builders.normal(count, POOLED, seed=91))


def null_pooled():
    return builders.normal(1, POOLED, seed=81)


def trainer(denoiser=None, config=CONFIG, **changed):
    given = {"held_out": toys.pictures(2), "prompts": texts(), "null_pooled": null_pooled()}
    return Trainer(
        denoiser or PooledDenoiser(),
        changed.pop("projection", None) or projection(),
        toys.pictures(2),
        toys.null(),
        config,
        0,
        **{**given, **changed},
    )


def by_part(states, eos, pooled):
    parts = dict(zip(WIDTHS, states.split(list(WIDTHS.values()), dim=-1), strict=True))
    return EncodedPrompt(parts, {key: [eos] for key in WIDTHS}, pooled)


def test_the_model_is_given_the_pictures_prompts_pooled_text_included():
    denoiser = PooledDenoiser()
    run = trainer(denoiser, replace(CONFIG, preservation=PreservationConfig()))
    run.step()
    readings, embeds = projection().readings, toys.pictures(2).embeds
    wanted = picture_prompt(readings, embeds, by_part(toys.null(), 1, null_pooled()), 0.0)
    context, pooled = (torch.cat(each) for each in zip(*denoiser.given, strict=True))
    for row, vector in zip(context, pooled, strict=True):
        place = (wanted[0] - row).flatten(1).norm(dim=1).argmin()
        assert torch.allclose(wanted[0][place], row, atol=1e-5)
        assert torch.allclose(wanted[1][place], vector, atol=1e-5)


def test_a_dropped_condition_is_the_empty_prompt_pooled_text_included():
    denoiser = PooledDenoiser()
    config = replace(CONFIG, preservation=PreservationConfig(), condition_dropout=1.0)
    trainer(denoiser, config).step()
    context, pooled = denoiser.given[0]
    assert torch.equal(context, toys.null().expand_as(context))
    assert torch.equal(pooled, null_pooled().expand_as(pooled))


def test_a_kept_prompt_is_the_pictures_edited_by_the_text():
    run = trainer()
    kept = run.regularizers().prompts
    form, embeds = run.loss.form, run.images.embeds[kept.batch.images]
    found = kept.contexts(form, embeds, torch.arange(2))
    for pair in range(2):
        text, own = int(kept.text_index[pair]), int(kept.batch.image_index[pair])
        given = texts()
        encoded = by_part(given.states[text : text + 1], given.eos[text], given.pooled[text][None])
        weight = float(kept.text_weights[pair])
        wanted = picture_prompt(projection().readings, embeds[own][None], encoded, weight)
        assert torch.allclose(found.states[pair], wanted[0][0], atol=1e-5)
        assert torch.allclose(found.pooled[pair], wanted[1][0], atol=1e-5)


@pytest.mark.parametrize(
    ("targets", "rate"), [("cross-attention", 0.1), ("transformer blocks", 0.01)]
)
def test_training_lowers_the_held_out_loss(targets, rate):
    lora = LoRAConfig(targets, 2, gradient_init_batches=int(targets != "cross-attention"))
    config = replace(CONFIG, lora=lora, learning_rate=rate)
    run = trainer(config=config, held_out=toys.pictures(2))
    before = run.validate()
    list(refine(run, 15))
    assert run.validate() < before


def test_a_model_that_reads_no_pooled_text_is_called_as_ever():
    run = trainer(
        toys.ToyDenoiser(), null_pooled=None, prompts=EncodedPrompts(toys.texts(4).states, (3,) * 4)
    )
    assert run.step() > 0


def test_steps_do_not_depend_on_the_mode_that_the_readings_were_made_in():
    with torch.inference_mode():
        made = projection()
    assert trainer(projection=made).step() == trainer().step()


def test_a_result_is_saved_and_loaded_bit_for_bit(tmp_path):
    run = trainer()
    list(refine(run, 2))
    save_projection(run.result(), tmp_path / "p")
    loaded = load_projection(tmp_path / "p")
    assert loaded.cross_attention.width == toys.WIDTH == loaded.context_width
    for name, delta in run.result().cross_attention.deltas.items():
        assert torch.equal(delta.weight(), loaded.cross_attention.deltas[name].weight())
    embeds = toys.pictures(2).embeds
    for name, states in run.result().readings.apply(embeds).items():
        assert torch.equal(states, loaded.readings.apply(embeds)[name])


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    whole = trainer()
    list(refine(whole, 4))
    first, second = trainer(), trainer()
    list(refine(first, 2))
    save_checkpoint(first, tmp_path / "run")
    load_checkpoint(second, tmp_path / "run")
    list(refine(second, 4))
    assert second.losses == whole.losses


def test_another_run_is_told_by_its_readings_and_pooled_texts(tmp_path):
    plain = run_fingerprint(trainer())
    assert plain == run_fingerprint(trainer())
    other = EncodedPrompts(texts().states, texts().eos, 2 * texts().pooled)
    for changed in (
        {"projection": projection(seed=50)},
        {"null_pooled": 2 * null_pooled()},
        {"prompts": other},
    ):
        assert run_fingerprint(trainer(**changed)) != plain
        run = trainer(**changed)
        save_checkpoint(run, tmp_path / "run")
        with pytest.raises(ImageToPromptError, match="another run"):
            load_checkpoint(trainer(), tmp_path / "run")


def test_pooled_text_of_another_width_is_refused():
    with pytest.raises(ImageToPromptError, match="pooled text"):
        trainer(null_pooled=torch.zeros(1, 5))
    with pytest.raises(ImageToPromptError, match="pooled text"):
        EncodedPrompts(toys.texts(4).states, (3,) * 4, torch.zeros(3, POOLED))


def test_changes_of_another_context_width_are_refused():
    run = trainer()
    list(refine(run, 1))
    with pytest.raises(ImageToPromptError, match="cross_attention"):
        replace(
            projection(),
            readings=None,
            cross_attention=run.result().cross_attention,
            encoder=replace(projection().encoder, text_width=31),
            matrix=projection().matrix[:31],
        )
