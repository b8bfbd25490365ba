"""A U-Net of SD 1.5's full size, 860 million random weights: every place is found and patched.

Random weights: shapes and names only.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    REFINE,
    ClipIdentity,
    LoRAConfig,
    Projection,
    ResidualConfig,
    Trainer,
    TrainingImages,
    save_projection,
)
from image_to_prompt.projection.adapters.unet_deltas import cross_kv
from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.training_tools import QUICK, generator, leftovers, predicted

# The transformers of SD 1.5's blocks.
BLOCKS = [
    *(f"input_blocks.{n}.1" for n in (1, 2, 4, 5, 7, 8)),
    "middle_block.1",
    *(f"output_blocks.{n}.1" for n in range(3, 12)),
]


@pytest.fixture(scope="module")
def model(host):
    state = small_unet.unet_state(small_unet.FULL, torch.float16)
    assert 859e6 < sum(weight.numel() for weight in state.values()) < 860e6
    return small_unet.host_model(state, torch.float16)


@pytest.fixture(scope="module", params=["transformer", "cross_attention"])
def refined(model, request):
    """One step with a residual and a part of the U-Net, as large as the presets have them."""
    from image_to_prompt.nodes.host.unet import HostDenoiser

    largest = next(iter(REFINE.values()))
    assert largest.lora.targets == "transformer blocks" and largest.lora.rank == 8
    lora = largest.lora if request.param == "transformer" else LoRAConfig()
    config = replace(QUICK, residual=ResidualConfig(rank=8), lora=lora)
    denoiser = HostDenoiser(model, 768)
    latents = (torch.randn(4, 8, 8, generator=generator(0)),)
    pictures = TrainingImages(latents, torch.randn(1, 768, generator=generator(1)))
    null = torch.randn(1, 77, 768, generator=generator(2))
    trainer = Trainer(denoiser, projection(), pictures, null, config, 0)
    trainer.step()
    return trainer.result()


def projection() -> Projection:
    return Projection(
        matrix=torch.eye(768),
        singular_values=torch.ones(768),
        encoder=ClipIdentity(768, 768, 1024, "0" * 64),
        method="pseudo-inverse",
        cutoff=0.3,
        kept=768,
    )


def test_all_sixteen_cross_attentions_are_found_under_the_names_of_checkpoints(model):
    from image_to_prompt.nodes.host.model.checks import layers_of

    layers = layers_of(model)
    maps = cross_kv(layers)
    expected = {
        f"{block}.transformer_blocks.0.attn2.{part}"
        for block in BLOCKS
        for part in ("to_k", "to_v")
    }
    assert len(BLOCKS) == 16 and set(maps) == expected
    assert {shape for shape in maps.values()} == {(width, 768) for width in (320, 640, 1280)}
    keys = model.model.state_dict()
    assert len(layers) == 160
    assert all(tuple(keys[f"diffusion_model.{n}.weight"].shape) == s for n, s in layers.items())


def test_every_one_of_them_is_trained_and_patched(model, refined, tmp_path):
    from image_to_prompt.nodes.host.model.checks import layers_of
    from image_to_prompt.nodes.host.model.patches import patch_model

    deltas = refined.cross_attention.deltas
    layers = layers_of(model)
    assert deltas.keys() in (layers.keys(), cross_kv(layers).keys())
    assert all(delta.weight().norm() > 0 for delta in deltas.values())
    plain = predicted(model)
    patched = patch_model(model, refined.cross_attention, 1.0)
    assert set(patched.patches) == {f"diffusion_model.{name}.weight" for name in deltas}
    assert not torch.equal(predicted(patched), plain)
    assert torch.equal(predicted(model), plain)
    assert not leftovers(model.model)
    path = tmp_path / "refined.safetensors"
    save_projection(refined, path)
    assert path.stat().st_size < 10e6
