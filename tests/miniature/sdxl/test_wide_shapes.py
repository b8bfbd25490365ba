"""Widening to SDXL keeps the function: checked part by part where the host is not needed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from . import heads, models
from .widen_text import stacked, widen_g
from .widen_unet import DEPTHS, host_name, widen_unet


def test_wide_heads_attend_as_the_narrow_ones():
    g, k = torch.Generator().manual_seed(10), 5
    x = torch.randn(2, 9, 64, generator=g)
    maps = {name: torch.randn(64, 64, generator=g) / 4 for name in ("q", "k", "v", "out")}

    def attended(x, q, key, v, out, count):
        split = [(x @ w.T).unflatten(-1, (count, -1)).transpose(1, 2) for w in (q, key, v)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return mixed @ out.T

    narrow = attended(x, maps["q"], maps["k"], maps["v"], maps["out"], 4)
    wide = attended(
        x.repeat_interleave(k, dim=-1), heads.into_heads(maps["q"], k, k, query=True),
        heads.into_heads(maps["k"], k, k), heads.into_heads(maps["v"], k, k),
        heads.out_of_heads(maps["out"], k), 5,
    )  # fmt: skip
    wanted = narrow.repeat_interleave(k, dim=-1)
    assert float((wide - wanted).norm() / wanted.norm()) < 1e-5


def test_idle_tensors_take_no_room():
    value = heads.idle(torch.Size((1280, 5120)))
    assert value.untyped_storage().size() == 4 and not value.any()
    assert heads.idle(torch.Size((3,)), ones=True).tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def wide_unet() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return widen_unet(models.unet_model().state_dict())


def test_the_unets_shapes_are_those_by_which_the_host_knows_sdxl(wide_unet):
    depth = []
    for index in range(1, 8):
        prefix = f"input_blocks.{index}."
        assert any(name.startswith(prefix) for name in wide_unet)
        if f"{prefix}0.op.weight" not in wide_unet:
            inner = f"{prefix}1.transformer_blocks."
            depth.append(len({n.split(".")[4] for n in wide_unet if n.startswith(inner)}))
    assert depth == [0, 0, 2, 2, 10, 10]
    assert wide_unet["label_emb.0.0.weight"].shape == (1280, 2816)
    assert wide_unet["input_blocks.3.1.proj_in.weight"].shape == (320, 320)
    key = "input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight"
    assert wide_unet[key].shape == (640, 2048)
    with pytest.raises(ValueError, match="expected a parameter"):
        host_name("class_embedding.weight")


def test_the_trained_transformer_block_is_the_last_of_its_stack(wide_unet):
    """So that code which leaves out the later blocks of a stack is seen to fail."""
    trained = {
        name.split(".attn1.")[0]
        for name, value in wide_unet.items()
        if name.endswith("attn1.to_q.weight") and value.any()
    }
    stacks = {f"{host}.1.transformer_blocks.{DEPTHS[host] - 1}" for host in ("input_blocks.3",)}
    assert stacks < trained
    assert "input_blocks.7.1.transformer_blocks.9" in trained
    assert len(trained) == 7  # two in the encoder, one in the middle, four in the decoder


def test_idle_blocks_pass_their_input_on(wide_unet):
    for index in (1, 2, 4, 5):
        assert not wide_unet[f"input_blocks.{index}.0.out_layers.3.weight"].any()
        assert f"input_blocks.{index}.0.skip_connection.weight" not in wide_unet
    for index in (3, 4, 5, 6):
        skip = wide_unet[f"output_blocks.{index}.0.skip_connection.weight"]
        x = torch.randn(1, 640, 2, 2)
        assert torch.equal(F.conv2d(x, skip), x[:, :320])
        assert not wide_unet[f"output_blocks.{index}.0.out_layers.3.weight"].any()
    for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
        assert not wide_unet[f"input_blocks.7.1.transformer_blocks.0.{name}.weight"].any()


def test_the_last_trained_layer_of_a_text_encoder_goes_to_the_last_index():
    trained = [{"ln_1.weight": torch.full((2,), float(i)), "b": torch.ones(2)} for i in range(3)]
    layers = stacked(trained, 12)
    assert [layers[i] is trained[j] for i, j in ((0, 0), (1, 1), (11, 2))] == [True] * 3
    assert layers[5]["ln_1.weight"].tolist() == [1, 1] and not layers[5]["b"].any()


@pytest.mark.slow
def test_g_has_openclips_names_and_its_projection_transposed():
    narrow = models.load("open_clip").state_dict()
    wide = widen_g(narrow)
    assert wide["model.transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    assert wide["model.text_projection"].shape == (1280, 1280)
    repeated = narrow["text_projection.weight"].T.repeat_interleave(20, 0).repeat_interleave(20, 1)
    assert torch.allclose(wide["model.text_projection"] * 20, repeated, atol=1e-6)
