"""Widening keeps the function: checked layer by layer where the host is not needed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from image_to_prompt.tests.miniature.drawings import models
from image_to_prompt.tests.miniature.drawings.preprocess import preprocess
from image_to_prompt.tests.miniature.drawings.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.drawings.tokenizer import Tokenizer
from image_to_prompt.tests.miniature.drawings.train_text import text_states
from image_to_prompt.tests.miniature.drawings.train_vision import image_embeds
from image_to_prompt.tests.miniature.drawings.world import COLOURS, THINGS, generator_of
from image_to_prompt.tests.miniature.widening.layers import layer
from image_to_prompt.tests.miniature.widening.widen_clip import K, widen_clip
from image_to_prompt.tests.miniature.widening.widen_unet import (
    HOST_SCALE,
    host_name,
    widen_taesd,
    widen_unet,
)

pytestmark = pytest.mark.slow  # the models have the sizes of SD 1.5


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def trained(part: str) -> dict[str, Tensor]:
    state = models.load(part).state_dict()
    return {name: value for name, value in state.items() if value.is_floating_point()}


@pytest.fixture(scope="module")
def wide_clip():
    """A CLIP of ViT-L/14's widths with the trained layers alone, to stay small."""
    common = {"num_hidden_layers": 3, "hidden_act": "quick_gelu"}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    config = CLIPConfig(
        text_config=common | text, vision_config=common | vision, projection_dim=768
    )
    model = CLIPModel(config)
    missing, unexpected = model.load_state_dict(widen_clip(trained("clip")), strict=False)
    assert not [name for name in missing if not name.endswith("position_ids")]
    assert all(".layers." in name for name in unexpected)  # the idle ones
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures():
    """Pictures that the miniature draws from captions, (20, 3, 96, 96) in [0, 1]."""
    mini = Miniature.load()
    captions = [f"a {thing} on a {ground} background" for ground in COLOURS for thing in THINGS]
    return mini.draw(mini.states(captions[::9][:20])[0], noise_of(5, 20))


def test_the_wide_text_tower_repeats_the_narrow_states(wide_clip):
    ids = Tokenizer()(["a fox on a blue background", ""])
    wide = wide_clip.text_model(input_ids=ids).last_hidden_state
    narrow = text_states(models.load("clip"), ids)
    assert relative(wide, narrow.repeat_interleave(K, dim=-1)) < 1e-3


def test_the_wide_picture_embedding_repeats_the_narrow_one(wide_clip, pictures):
    wanted = image_embeds(models.load("clip"), pictures[:2])
    tokens = wide_clip.vision_model(pixel_values=preprocess(pictures[:2])).pooler_output
    found = wide_clip.visual_projection(tokens)
    assert relative(found, wanted.repeat_interleave(K, dim=-1)) < 1e-3


def test_idle_layers_add_nothing():
    state = widen_clip(trained("clip"))
    assert len([n for n in state if n.endswith("layer_norm1.weight")]) == 12 + 24
    for tower, last in (("text_model", 11), ("vision_model", 23)):
        for name in ("self_attn.out_proj", "mlp.fc2"):
            for leaf in ("weight", "bias"):
                assert not state[f"{tower}.encoder.layers.{last}.{name}.{leaf}"].any()


def test_the_spectrum_of_the_text_projection_is_kept():
    narrow = models.load("clip").text_projection.weight
    wide = layer("text_projection.weight", narrow, K)
    values = torch.linalg.svdvals(wide.double())
    assert torch.allclose(values[:96], torch.linalg.svdvals(narrow.double()), atol=1e-5)
    assert values[96:].max() < 1e-5


def test_a_widened_convolution_and_norm_keep_their_function():
    g = generator_of(4, 0)
    x, weight = torch.randn(2, 64, 8, 8, generator=g), torch.randn(64, 64, 3, 3, generator=g)
    bias, gain = torch.randn(64, generator=g), torch.randn(64, generator=g)
    narrow = F.group_norm(F.conv2d(x, weight, bias, padding=1), 32, gain, bias)
    w, b, n = (layer(name, v, 5) for name, v in (("weight", weight), ("bias", bias), ("n", gain)))
    wide = F.group_norm(F.conv2d(x.repeat_interleave(5, 1), w, b, padding=1), 32, n, b)
    assert relative(wide, narrow.repeat_interleave(5, 1)) < 1e-5


def test_the_unets_keys_and_shapes_are_those_of_sd15():
    state = widen_unet(trained("unet"))
    assert len(state) == len(trained("unet"))
    assert state["input_blocks.0.0.weight"].shape == (320, 4, 3, 3)
    assert state["time_embed.0.weight"].shape == (1280, 320)
    assert state["out.2.weight"].shape == (4, 320, 3, 3)
    key = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert state[key].shape == (320, 768)
    with pytest.raises(ValueError, match="expected a parameter"):
        host_name("add_embedding.linear_1.weight")


def test_the_autoencoders_scale_makes_the_hosts_latents_unit_normal(pictures):
    state = widen_taesd(trained("taesd"), models.latent_scale())
    assert state["taesd_encoder.0.weight"].shape == (64, 3, 3, 3)
    assert state["taesd_decoder.1.weight"].shape == (64, 4, 3, 3)
    latents = models.load("taesd").encode(pictures * 2 - 1).latents / state["vae_scale"]
    # The scale was measured on real drawings; these are drawn by the U-Net.
    assert abs(float((latents * HOST_SCALE).std()) - 1) < 0.1
