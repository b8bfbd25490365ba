"""LoRA's A from the images' prompts, orthogonal to the empty one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    LoRAConfig,
    LoRADelta,
    NoiseConfig,
    Trainer,
    TrainingConfig,
    UNetDeltas,
    refine,
)
from image_to_prompt.projection.initialization.pca_init import prompt_pca_directions
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys


def empty():
    """SOS, then end states that differ a little."""
    end = 5 * builders.normal(32, seed=1)
    states = end + 0.01 * builders.normal(77, 32, seed=2)
    states[0] = 9 * builders.normal(32, seed=3)
    return states


@pytest.mark.parametrize("count, rank, found", [(1, 8, 1), (3, 8, 3), (20, 8, 8), (20, 40, 20)])
def test_there_are_as_many_keys_as_directions_and_at_most_the_rank(count, rank, found):
    keys = prompt_pca_directions(builders.normal(count, 32, seed=4), empty(), rank)
    assert keys.shape == (found, 32) and keys.dtype == torch.float32


@pytest.mark.parametrize("count", [1, 20])
def test_keys_answer_to_the_pictures_and_hardly_to_the_empty_prompt(count):
    prompts = 27.5 * torch.nn.functional.normalize(builders.normal(count, 32, seed=4), dim=-1)
    keys = prompt_pca_directions(prompts, empty(), 8)
    size = (prompts @ keys.T).square().mean(dim=0)
    assert size[0] == pytest.approx(1, abs=1e-4)
    assert (size < 1 + 1e-4).all() and (size > 1e-3).all()
    assert (empty() @ keys.T).abs().max() < 0.02


def test_keys_are_orthogonal_and_the_first_explains_most():
    spread = torch.linspace(3, 0.1, 32)
    prompts = builders.normal(50, 32, seed=4) * spread
    keys = prompt_pca_directions(prompts, empty(), 4)
    unit = torch.nn.functional.normalize(keys, dim=-1)
    assert torch.allclose(unit @ unit.T, torch.eye(4), atol=1e-5)
    explained = (prompts @ unit.T).square().mean(dim=0)
    assert explained.tolist() == sorted(explained.tolist(), reverse=True)


def test_a_picture_that_is_the_empty_prompt_still_has_a_finite_key():
    assert prompt_pca_directions(empty()[1:].mean(dim=0, keepdim=True), empty(), 4).isfinite().all()


def test_training_moves_b_and_leaves_a():
    settings = TrainingConfig(
        1e-2, lora=LoRAConfig(rank=2), noise=NoiseConfig(timesteps_per_image=2)
    )
    run = Trainer(
        toys.ToyDenoiser(), builders.small_projection(), toys.pictures(), empty()[None], settings, 0
    )
    before = run.parameters.snapshot()
    list(refine(run, 3))
    for name, value in run.parameters.values.items():
        assert torch.equal(value, before[name]) == name.endswith("down")


def test_random_rows_of_whole_blocks_have_unit_gain_at_every_width():
    denoiser = toys.ToyDenoiser()
    around = "middle_block.1.transformer_blocks.0.ff.net.2"
    denoiser.linear_shapes = {**denoiser.cross_kv_shapes, around: (32, 4096)}
    run = Trainer(
        denoiser,
        builders.small_projection(),
        toys.pictures(),
        empty()[None],
        TrainingConfig(1e-2, lora=LoRAConfig("transformer blocks", 64)),
        0,
    )
    values = run.parameters.values
    names = {f"cross-attention.{name}" for name in denoiser.linear_shapes}
    assert {name.rpartition(".")[0] for name in values} == names
    for name, (outputs, inputs) in denoiser.linear_shapes.items():
        down = values[f"cross-attention.{name}.down"]
        hidden = builders.normal(500, inputs, seed=6) @ down.T
        assert down.shape == (min(64, inputs), inputs)
        assert float(hidden.detach().std()) == pytest.approx(1, abs=0.1)
        up = values[f"cross-attention.{name}.up"]
        assert up.shape == (outputs, len(down)) and not up.any()


def test_trained_blocks_stay_where_only_cross_attentions_are_trained_further():
    denoiser = toys.ToyDenoiser()
    around = "middle_block.1.transformer_blocks.0.ff.net.2"
    denoiser.linear_shapes = {**denoiser.cross_kv_shapes, around: (32, 64)}
    down, up = builders.normal(2, 64, seed=7), builders.normal(32, 2, seed=8)
    known = UNetDeltas({around: LoRADelta(down, up)})
    begun = replace(builders.small_projection(), cross_attention=known)
    run = Trainer(
        denoiser, begun, toys.pictures(), empty()[None], TrainingConfig(0.3, lora=LoRAConfig()), 0
    )
    at = f"cross-attention.{around}"
    assert run.parameters.rates[f"{at}.up"] == run.parameters.rates[f"{at}.down"] == 0
    assert torch.equal(run.parameters.values[f"{at}.up"], up)
    for name in denoiser.cross_kv_shapes:
        assert run.parameters.rates[f"cross-attention.{name}.up"] == 0.3
