"""Sets of texts that come again: the model is asked once for each what it said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import Trainer, TrainingConfig, TrainingImages, refine
from image_to_prompt.projection.diffusion.loss import Regularizers, gradients, said_at_start
from image_to_prompt.projection.training.checkpoint import load_checkpoint, save_checkpoint
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

PLAIN = TrainingConfig(0.05, cross_attention=1.0, cross_rank=2, levels=4, snr_limit=5.0, keep=3)
SETS = replace(PLAIN, keep_sets=2)


def trainer(settings, chunk=0, count=2):
    return Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        toys.pictures(count),
        toys.null(),
        settings,
        0,
        chunk=chunk,
        texts=toys.texts(),
    )


def test_sets_come_again_and_the_model_is_asked_once_for_each():
    run, plain = trainer(SETS, count=1), trainer(PLAIN, count=1)
    asked = []
    for each in (run, plain):
        list(refine(each, 5))
        asked.append(len(each.denoiser.seen))
    assert asked == [2 * 5 + 2, 3 * 5]
    kept = [run._kept_texts() for _ in range(2)]
    assert kept[0] is kept[1]
    assert len(run._kept) == 2
    one, two = run._kept.values()
    assert not torch.equal(one.weights, two.weights)


@pytest.mark.parametrize("chunk", [0, 2])
def test_what_the_model_said_is_what_it_would_say_again(chunk):
    run = trainer(SETS, chunk=chunk, count=1)
    list(refine(run, 3))
    kept, batch = run._kept_texts(), run._batch()
    known = gradients(run, batch, Regularizers(kept))[1]
    again = gradients(run, batch, Regularizers(replace(kept, said=None)))[1]
    assert all(torch.equal(known[name], again[name]) for name in known)


def test_what_was_said_is_in_the_order_of_the_pairs_whatever_their_sizes():
    sizes = [(4, 4), (2, 6)]
    latents = tuple(builders.normal(4, *size, seed=7 + i) for i, size in enumerate(sizes))
    source = TrainingImages(latents, toys.pictures(2).embeds)
    run = Trainer(
        toys.ToyDenoiser(),
        builders.small_projection(),
        source,
        toys.null(),
        replace(SETS, pictures=2, keep=4),
        0,
        texts=toys.texts(),
    )
    kept = run._kept_texts()
    assert [tuple(each.shape[1:]) for each in kept.said] == [
        sizes[kept.batch.pictures[k]] for k in kept.batch.owner.tolist()
    ]
    for pair, said in enumerate(kept.said):
        alone = said_at_start(run, kept, torch.tensor([pair]))[0]
        assert torch.allclose(said, alone, atol=1e-5)


def test_a_resumed_run_has_the_same_sets(tmp_path):
    whole, part, rest = (trainer(SETS) for _ in range(3))
    list(refine(whole, 4))
    list(refine(part, 3))
    save_checkpoint(part, tmp_path / "run")
    load_checkpoint(rest, tmp_path / "run")
    list(refine(rest, 4))
    mine, theirs = whole.trainable.values, rest.trainable.values
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
