"""Changes of cross-attentions: the same added to the output or to the weight; strict names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    FullDelta,
    ImageToPromptError,
    LoRADelta,
    UNetDeltas,
    check_maps,
    lora_state,
)
from image_to_prompt.tests.fixtures import builders

NAME = "middle_block.1.transformer_blocks.0.attn2.to_k"
OTHER = "output_blocks.3.1.transformer_blocks.0.attn2.to_v"


def low(outputs=24, inputs=32, rank=3, dtype=torch.float32):
    down = builders.normal(rank, inputs, seed=1).to(dtype)
    return LoRADelta(down, builders.normal(outputs, rank, seed=2).to(dtype))


def full(outputs=24, inputs=32):
    return FullDelta(builders.normal(outputs, inputs, seed=3))


@pytest.mark.parametrize("delta", [low(), full(), low(dtype=torch.float16)])
def test_what_the_output_gains_is_what_the_weight_gains(delta):
    context = builders.normal(2, 77, 32, seed=4)
    assert delta.shape == (24, 32)
    assert torch.allclose(delta(context), context @ delta.weight().T, atol=2e-4)
    assert delta(context).dtype == torch.float32


def test_a_lora_file_holds_the_same_change():
    change = UNetDeltas({NAME: low(), OTHER: full()})
    state = lora_state(change)
    base = f"diffusion_model.{NAME}"
    up, down = state[f"{base}.lora_up.weight"], state[f"{base}.lora_down.weight"]
    scale = float(state[f"{base}.alpha"]) / len(down)
    assert torch.equal(scale * up @ down, change.deltas[NAME].weight())
    assert torch.equal(state[f"diffusion_model.{OTHER}.diff"], full().matrix)
    assert len(state) == 4


@pytest.mark.parametrize(
    "name",
    ["", f"{NAME}.weight", NAME.replace("attn2.to_k", "norm1"), "attn2.to_k", "out.2"],
)
def test_only_linear_maps_of_transformer_blocks_may_be_changed(name):
    with pytest.raises(ImageToPromptError, match="attn2"):
        UNetDeltas({NAME: low(), name: low()})


def test_the_maps_around_may_be_changed_and_say_nothing_of_the_context():
    around = NAME.replace("attn2.to_k", "ff.net.2")
    assert UNetDeltas({around: low(inputs=96)}).width is None
    assert UNetDeltas({around: low(inputs=96), NAME: low()}).width == 32


def test_no_change_at_all_and_mixed_widths_are_refused():
    with pytest.raises(ImageToPromptError, match="attn2"):
        UNetDeltas({})
    with pytest.raises(ImageToPromptError, match="widths"):
        UNetDeltas({NAME: low(), OTHER: full(inputs=16)})


def test_the_changes_cannot_be_changed_afterwards():
    given = {NAME: low()}
    change = UNetDeltas(given)
    given[OTHER] = low()
    assert list(change.deltas) == [NAME]
    with pytest.raises(TypeError):
        change.deltas[OTHER] = low()


def test_a_name_or_shape_that_the_model_lacks_is_an_error():
    change = UNetDeltas({NAME: low()})
    check_maps(change, {NAME: (24, 32), OTHER: (1, 1)})
    with pytest.raises(ImageToPromptError, match=r"middle_block.*none"):
        check_maps(change, {OTHER: (24, 32)})
    with pytest.raises(ImageToPromptError, match="25"):
        check_maps(change, {NAME: (25, 32)})


@pytest.mark.parametrize("up, down", [((24, 2), (3, 32)), ((24,), (3, 32)), ((24, 0), (0, 32))])
def test_factors_that_do_not_fit_are_refused(up, down):
    with pytest.raises(ImageToPromptError, match="low-rank"):
        LoRADelta(torch.zeros(down), torch.zeros(up))


def test_changes_for_another_text_width_do_not_fit_a_projection():
    with pytest.raises(ImageToPromptError, match="cross_attention of width 32"):
        replace(builders.small_projection(), cross_attention=UNetDeltas({NAME: low(inputs=16)}))


def test_numbers_of_another_kind_are_refused():
    with pytest.raises(ImageToPromptError, match="float16"):
        FullDelta(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ImageToPromptError, match="finite"):
        FullDelta(torch.full((2, 2), torch.nan))
    with pytest.raises(ImageToPromptError, match=r"\(O, C\)"):
        FullDelta(torch.zeros(2))
