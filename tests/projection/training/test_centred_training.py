"""Training a projection with a centred form: nothing of it is trained, all of it is used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    CaptionStatistics,
    Centred,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    ResidualConfig,
    Trainer,
    TrainingConfig,
    condition,
    refine,
    visual_direction,
)
from image_to_prompt.projection.checkpoint.run_file import run_fingerprint
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

SETTINGS = TrainingConfig(
    0.05,
    residual=ResidualConfig(),
    lora=LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=2),
    preservation=PreservationConfig(preserve_pairs=3, preserve_weight=2.0),
)
PLAIN = builders.small_projection()


def with_gap(gap):
    statistics = CaptionStatistics.of(builders.normal(40, 32, seed=2) + 0.5)
    direction = visual_direction(builders.visual_projection())
    form = Centred.of(builders.text_projection(), statistics, direction, 1.0, gap)
    return replace(PLAIN, centred=form)


def trainer(projection):
    run = (toys.ToyDenoiser(), projection, toys.pictures(2), toys.null(), SETTINGS, 0)
    return Trainer(*run, prompts=toys.texts())


@pytest.mark.parametrize("gap", [0.5, 1.0])
def test_at_the_start_the_given_projection_is_used_bit_for_bit(gap):
    projection = with_gap(gap)
    embeds = toys.pictures(2).embeds
    assert torch.equal(trainer(projection).current().apply(embeds), projection.apply(embeds))


def test_training_lowers_the_loss_and_leaves_the_centred_form_as_it_was():
    run = trainer(with_gap(1.0))
    losses = [progress.loss for progress in refine(run, 30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    found, start = run.result().centred, with_gap(1.0).centred
    assert torch.equal(found.matrix, start.matrix)
    assert (found.gap, found.spread) == (start.gap, start.spread)
    assert run.result().residual is not None


def test_a_projection_made_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        projection = with_gap(0.5)
    list(refine(trainer(projection), 2))


def test_texts_are_kept_as_the_centred_edit_has_them():
    projection = with_gap(1.0)
    run = trainer(projection)
    kept = run.regularizers().prompts
    e = projection.apply(run.images.embeds[kept.batch.images])
    for pair, context in enumerate(kept.contexts(run.loss.form, e, torch.arange(3)).states):
        text, owner = int(kept.text_index[pair]), int(kept.batch.image_index[pair])
        states, eos = kept.prompts.states[text : text + 1], [kept.prompts.eos[text]]
        if eos == [1]:
            continue
        weight = float(kept.text_weights[pair])
        wanted = condition(states, eos, e[owner : owner + 1], weight, "add", projection.centred)
        assert torch.equal(context, wanted[0])
        assert not torch.equal(context, condition(states, eos, e[owner : owner + 1], weight)[0])


def test_another_gap_is_another_run():
    marks = {run_fingerprint(trainer(p)) for p in (PLAIN, with_gap(0.0), with_gap(1.0))}
    assert len(marks) == 3
