"""The world of drawings, the joint space and the gap: laws that need neither drawings nor npm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from image_to_prompt.projection import invert

from . import gap, joint_space, models, patches, training
from .captions import OTHER, TEMPLATES, all_captions, names
from .preprocess import MEAN, STD, preprocess
from .tokenizer import END, START, Tokenizer, end_positions, load_table, words_of
from .train_vision import class_states
from .world import COLOURS, THINGS, is_held_out, pairs


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    model = models.clip_model().eval().requires_grad_(False)
    model.vision_model.post_layernorm.weight.uniform_(0.5, 1.5)
    model.vision_model.post_layernorm.bias.normal_()
    return model


def test_every_word_of_every_caption_is_in_the_vocabulary():
    table = load_table()
    for pair in pairs("all"):
        for caption in all_captions(pair):
            assert all(word in table for word in words_of(caption))
    assert all(word in table for word in OTHER)


def test_ids_start_end_and_padding():
    ids = Tokenizer()(["a fox on a red background", ""])
    assert ids[:, 0].tolist() == [START, START]
    assert end_positions(ids).tolist() == [7, 1]
    assert (ids[0, 7:] == END).all()


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="zebra"):
        Tokenizer()(["a zebra"])


def test_one_pair_in_eight_is_held_out_and_each_thing_has_one():
    held_out = pairs("test")
    assert held_out[:, 0].tolist() == list(range(len(THINGS)))
    assert is_held_out(held_out[:, 0], held_out[:, 1]).all()
    assert len(pairs("train")) == len(THINGS) * (len(COLOURS) - 1)


def test_full_templates_name_both_and_partial_ones_leave_something_out():
    kinds = {names(template) for template in TEMPLATES}
    assert kinds == {(True, True), (True, False), (False, True)}


def test_joint_space_has_the_spectrum_and_orthogonal_directions():
    space = joint_space.build()
    values = torch.linalg.svdvals(space.projection)
    assert torch.allclose(values, space.s, atol=1e-5)
    named = torch.cat([space.things, space.grounds, space.wordings, space.rest])
    assert torch.allclose(named @ named.T, torch.eye(len(named)), atol=1e-5)
    assert (named @ space.U[:, joint_space.KEPT :]).abs().max() < 1e-5
    assert (named @ space.U[:, 0]).abs().max() < 1e-5


def test_the_constant_of_pictures_is_exact(clip):
    pictures = torch.rand(4, 3, 96, 96)
    before = class_states(clip, pictures) @ clip.visual_projection.weight.T
    offset = torch.randn(96) * 3
    gap.add_constant(clip, offset)
    after = class_states(clip, pictures) @ clip.visual_projection.weight.T
    assert torch.allclose(after - before, offset.expand(4, -1), atol=1e-4)
    first = torch.linalg.svd(clip.visual_projection.weight)[1]
    assert first[0] / first.median() > 2


def test_pseudo_inverse_keeps_what_lies_above_the_cut():
    space = joint_space.build()
    inverse = invert(space.projection, "pseudo-inverse", joint_space.CUT).matrix
    joint = space.targets(torch.tensor([3]), torch.tensor([5]))
    assert torch.allclose(joint @ inverse.T @ space.projection.T, joint, atol=1e-4)
    assert (space.U[:, joint_space.KEPT :].T @ inverse.T).abs().max() < 1e-3


def test_patches_equal_the_convolution_on_the_upsampled_picture(clip):
    picture = F.interpolate(torch.rand(1, 3, 12, 12), (96, 96), mode="bicubic").clamp(0, 1)
    weight = clip.vision_model.embeddings.patch_embedding.weight
    here = patches.embed(patches.windows(picture), weight)
    there = F.conv2d(preprocess(picture), weight, stride=14).flatten(2).transpose(1, 2)
    inner = torch.zeros(16, 16, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    difference = (here - there)[:, inner.flatten()].abs().max()
    assert difference < 0.02 * there.abs().max()
    assert MEAN.shape == STD.shape == (3, 1, 1)


def run_of(folder, steps: int, decay: int = 2, **options) -> training.Run:
    torch.manual_seed(1)
    plan = training.Schedule(steps=steps, rate=1e-2, decay=decay)
    return training.Run("small", torch.nn.Linear(3, 2), plan, 0, folder=folder, **options)


def advance(run: training.Run, until: int) -> None:
    while run.step < until:
        x = torch.randn(8, 3, generator=run.generator())
        weight = run.parameters["weight"]
        run.descend((x @ weight.T).square().mean() + run.parameters["bias"].square().sum())


@pytest.mark.parametrize("options", [{}, {"slow": {"bias": 0.1}}])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, options):
    whole = run_of(tmp_path / "a", 10, **options)
    advance(whole, 10)
    first = run_of(tmp_path / "b", 10, **options)
    advance(first, 5)
    first.save(first.path)
    second = run_of(tmp_path / "b", 10, **options)
    assert second.step == 5
    advance(second, 10)
    assert torch.equal(whole.mean["weight"], second.mean["weight"])


def test_a_slow_parameter_moves_by_its_share_of_the_rate(tmp_path):
    moved = []
    for place, options in (("a", {}), ("b", {"slow": {"bias": 0.1}})):
        run = run_of(tmp_path / place, 10, **options)
        before = {name: value.detach().clone() for name, value in run.parameters.items()}
        advance(run, 1)
        moved.append({name: v.detach() - before[name] for name, v in run.parameters.items()})
    assert torch.equal(moved[0]["weight"], moved[1]["weight"])
    assert torch.allclose(0.1 * moved[0]["bias"], moved[1]["bias"], rtol=1e-3)


def test_a_longer_run_goes_on_from_before_the_decay(tmp_path):
    short = run_of(tmp_path, 10)
    advance(short, 10)
    assert run_of(tmp_path, 10).done
    longer = run_of(tmp_path, 20)
    assert longer.step == 8
