"""The trainer on a diffusers U-Net. Random weights: wiring and arithmetic only."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from image_to_prompt.projection import (
    DiffusersDenoiser,
    ImageToPromptError,
    Trainer,
    refine,
)
from image_to_prompt.projection.integrations.diffusers_unet import checkpoint_name
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

diffusers = pytest.importorskip("diffusers")


def toy_unet(**more):
    """Two levels, of 32 and 64 channels, with random weights."""
    settings = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = diffusers.UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(32, 64),
            layers_per_block=2,
            norm_num_groups=8,
            cross_attention_dim=toys.WIDTH,
            attention_head_dim=4,
            **settings,
        )
    return model.eval()


@pytest.fixture(scope="module")
def unet():
    return toy_unet()


@pytest.fixture
def denoiser(unet):
    return DiffusersDenoiser(unet, diffusers.DDPMScheduler())


def inputs(count=2):
    noisy = builders.normal(count, 4, 4, 4, seed=1)
    return noisy, torch.tensor([3, 700])[:count], builders.normal(count, 77, toys.WIDTH, seed=2)


def test_without_deltas_the_prediction_is_the_u_nets_own(unet, denoiser):
    noisy, times, context = inputs()
    with torch.no_grad():
        assert torch.equal(denoiser.predict(noisy, times, context, {}), unet(*inputs()).sample)


def test_a_delta_is_the_same_as_a_changed_weight(unet, denoiser):
    noisy, times, context = inputs()
    maps = enumerate(denoiser.cross_kv_shapes.items())
    changes = {name: 0.3 * builders.normal(*shape, seed=i) for i, (name, shape) in maps}
    other = copy.deepcopy(unet)
    with torch.no_grad():
        for path, module in other.named_modules():
            if path.endswith((".attn2.to_k", ".attn2.to_v")):
                module.weight += changes[checkpoint_name(path, 2)]
        gains = {n: (lambda c, w=w: c @ w.T) for n, w in changes.items()}
        got = denoiser.predict(noisy, times, context, gains)
        assert torch.allclose(got, other(noisy, times, context).sample, atol=1e-4)
        assert not torch.allclose(got, unet(noisy, times, context).sample, atol=1e-3)


def hooks(unet):
    return sum(len(module._forward_hooks) for module in unet.modules())


def test_nothing_stays_in_the_u_net_whatever_happens(unet, denoiser):
    noisy, times, context = inputs()
    before = {name: value.clone() for name, value in unet.state_dict().items()}

    def broken(context):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoiser.predict(noisy, times, context, dict.fromkeys(denoiser.cross_kv_shapes, broken))
    assert hooks(unet) == 0
    run = Trainer(
        denoiser,
        builders.small_projection(),
        toys.pictures(1),
        toys.null(),
        toys.both(1e-2),
        0,
    )
    list(refine(run, 2))
    assert hooks(unet) == 0
    assert all(value.grad is None for value in unet.parameters())
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_an_unknown_name_is_an_error(denoiser):
    noisy, times, context = inputs()
    with pytest.raises(ImageToPromptError, match=r"input_blocks\.9"):
        denoiser.predict(noisy, times, context, {"input_blocks.9.1.attn2.to_k": torch.relu})


def test_training_on_the_u_net_lowers_its_loss(denoiser):
    run = Trainer(
        denoiser,
        builders.small_projection(),
        toys.pictures(1),
        toys.null(),
        toys.both(3e-2),
        0,
        held_out=toys.pictures(1),
    )
    before = run.validate()
    list(refine(run, 15))
    assert run.validate() < before


# The cross-attentions of Stable Diffusion 1.x, by their place in its checkpoints.
SD15 = [f"input_blocks.{i}.1" for i in (1, 2, 4, 5, 7, 8)] + ["middle_block.1"]
SD15 += [f"output_blocks.{i}.1" for i in range(3, 12)]


def test_all_sixteen_cross_attentions_of_sd15_are_found_by_name():
    with torch.device("meta"):
        full = diffusers.UNet2DConditionModel(
            cross_attention_dim=768,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
        )
    stand_in = SimpleNamespace(alphas_cumprod=torch.ones(3), config=SimpleNamespace())
    denoiser = DiffusersDenoiser(full, stand_in)
    maps = denoiser.cross_kv_shapes
    wanted = {
        f"{place}.transformer_blocks.0.attn2.{leaf}" for place in SD15 for leaf in ("to_k", "to_v")
    }
    assert set(maps) == wanted and len(maps) == 32
    assert maps["input_blocks.4.1.transformer_blocks.0.attn2.to_k"] == (640, 768)
    assert len(denoiser.linear_shapes) == 160 and maps.items() <= denoiser.linear_shapes.items()
    assert denoiser.linear_shapes["middle_block.1.transformer_blocks.0.ff.net.0.proj"] == (
        10240,
        1280,
    )
    assert denoiser.linear_shapes["middle_block.1.transformer_blocks.0.ff.net.2"] == (1280, 5120)
    assert maps["middle_block.1.transformer_blocks.0.attn2.to_v"] == (1280, 768)


def test_a_place_outside_the_blocks_has_no_name():
    with pytest.raises(ImageToPromptError, match=r"SD 1\.x"):
        checkpoint_name("transformer_blocks.0.attn2.to_k", 2)


@pytest.mark.parametrize(
    "given, kind", [("epsilon", "epsilon"), ("v_prediction", "v"), ("sample", "sample")]
)
def test_the_kind_of_prediction_is_the_schedulers(unet, given, kind):
    scheduler = diffusers.DDPMScheduler(prediction_type=given)
    assert DiffusersDenoiser(unet, scheduler).prediction_type == kind


@pytest.fixture(scope="module")
def sdxl():
    """SDXL's kind: two transformer blocks at a place, linear projections, pooled text and sizes."""
    return toy_unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=10 + 6 * 8,
    )


def test_sdxl_is_given_pooled_text_and_the_pictures_size(sdxl):
    denoiser = DiffusersDenoiser(sdxl, diffusers.DDPMScheduler())
    noisy, times, context = builders.normal(2, 4, 4, 6, seed=1), *inputs()[1:]
    pooled = builders.normal(2, 10, seed=3)
    sizes = torch.tensor([[32.0, 48.0, 0, 0, 32.0, 48.0]]).expand(2, -1)
    added = {"text_embeds": pooled, "time_ids": sizes}
    with torch.no_grad():
        wanted = sdxl(noisy, times, context, added_cond_kwargs=added).sample
        assert torch.equal(denoiser.predict(noisy, times, context, {}, pooled), wanted)
        other = denoiser.predict(noisy, times, context, {}, 2 * pooled)
    assert not torch.allclose(other, wanted, atol=1e-4)


def test_every_transformer_block_of_sdxl_has_its_name_in_checkpoints(sdxl):
    found = DiffusersDenoiser(sdxl, diffusers.DDPMScheduler()).linear_shapes
    places = ["input_blocks.4.1", "input_blocks.5.1", "middle_block.1"]
    places += [f"output_blocks.{place}.1" for place in range(3)]
    blocks = {name.partition(".attn")[0].partition(".ff")[0] for name in found}
    assert blocks == {f"{p}.transformer_blocks.{n}" for p in places for n in (0, 1)}
    assert len(found) == 10 * len(blocks)
