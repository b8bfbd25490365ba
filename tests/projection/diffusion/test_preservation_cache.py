"""Cached sets of prompt preservation: the teacher is computed once for each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    Trainer,
    TrainingConfig,
    TrainingImages,
    refine,
)
from image_to_prompt.projection.checkpoint.run_file import load_checkpoint, save_checkpoint
from image_to_prompt.projection.diffusion.preservation import Regularizers
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

PLAIN = TrainingConfig(
    0.05,
    lora=LoRAConfig(rank=2),
    noise=NoiseConfig(timesteps_per_image=4, sampling_min_snr_gamma=5.0),
    preservation=PreservationConfig(preserve_pairs=3),
)
SETS = toys.changed(PLAIN, preserve_cache=2)


def trainer(settings, micro_batch_size=0, count=2):
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(count),
        toys.null(),
        settings,
        0,
        micro_batch_size=micro_batch_size,
        prompts=toys.texts(),
    )


def test_sets_come_again_and_the_teacher_is_computed_once_for_each():
    run, plain = trainer(SETS, count=1), trainer(PLAIN, count=1)
    asked = []
    for each in (run, plain):
        list(refine(each, 5))
        asked.append(len(each.denoiser.seen))
    assert asked == [2 * 5 + 2, 3 * 5]
    kept = [run.regularizers().prompts for _ in range(2)]
    assert kept[0] is kept[1]
    assert len(run._cached) == 2
    one, two = run._cached.values()
    assert not torch.equal(one.text_weights, two.text_weights)


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_cached_teacher_prediction_is_the_one_computed_again(chunk):
    run = trainer(SETS, micro_batch_size=chunk, count=1)
    list(refine(run, 3))
    kept, batch = run.regularizers().prompts, run.sampler.batch(run.steps_done)
    known = toys.gradients(run, batch, Regularizers(kept))[1]
    again = toys.gradients(run, batch, Regularizers(replace(kept, teacher_prediction=None)))[1]
    assert all(torch.equal(known[name], again[name]) for name in known)


def test_teacher_predictions_are_in_the_order_of_the_pairs_whatever_their_sizes():
    sizes = [(4, 4), (2, 6)]
    latents = tuple(builders.normal(4, *size, seed=7 + i) for i, size in enumerate(sizes))
    source = TrainingImages(latents, toys.pictures(2).embeds)
    run = Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        source,
        toys.null(),
        toys.changed(SETS, batch_size=2, preserve_pairs=4),
        0,
        prompts=toys.texts(),
    )
    kept = run.regularizers().prompts
    assert [tuple(each.shape[1:]) for each in kept.teacher_prediction] == [
        sizes[kept.batch.images[k]] for k in kept.batch.image_index.tolist()
    ]
    for pair, cached in enumerate(kept.teacher_prediction):
        alone = run.loss.teacher_predictions(run.parameters.initial, kept, torch.tensor([pair]))[0]
        assert torch.allclose(cached, alone, atol=1e-5)


def test_a_resumed_run_has_the_same_sets(tmp_path):
    whole, part, rest = (trainer(SETS) for _ in range(3))
    list(refine(whole, 4))
    list(refine(part, 3))
    save_checkpoint(part, tmp_path / "run")
    load_checkpoint(rest, tmp_path / "run")
    list(refine(rest, 4))
    mine, theirs = whole.parameters.values, rest.parameters.values
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
