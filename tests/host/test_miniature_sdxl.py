"""The trained miniature of SDXL, widened to SDXL's shapes, in the unmodified host.

Every part must give what the narrow model gives, each channel repeated; the whole must give the
picture that diffusers gives from the same noise and conditioning.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from image_to_prompt.tests.host import sdxl_miniature
from image_to_prompt.tests.host.sdxl_miniature import wide
from image_to_prompt.tests.miniature.sdxl import pipeline
from image_to_prompt.tests.miniature.sdxl.conditions import plain_sizes
from image_to_prompt.tests.miniature.sdxl.sampling import Miniature
from image_to_prompt.tests.miniature.sdxl.train_unet import predict

CAPTIONS = ["a fox on a red background", "a plain blue picture"]
TOLERANCE = 1e-3  # relative, fp32
STEPS, GUIDANCE, SEED = 12, 3.0, 5


@torch.no_grad()
def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def mini() -> Miniature:
    return Miniature.load()


@pytest.fixture(scope="module")
def loaded(host):
    return sdxl_miniature.load()


def encoded(loaded, text: str) -> tuple[Tensor, Tensor]:
    import nodes

    with torch.inference_mode():
        [[[states, extra]]] = nodes.CLIPTextEncode().encode(loaded.clip, text)
    return states.clone(), extra["pooled_output"].clone()


def test_the_host_takes_it_for_sdxl_and_misses_nothing(loaded):
    import comfy.latent_formats
    import comfy.model_base
    import comfy.sdxl_clip
    import comfy.supported_models

    assert type(loaded.model.model) is comfy.model_base.SDXL
    assert type(loaded.model.model.model_config) is comfy.supported_models.SDXL
    assert type(loaded.model.model.latent_format) is comfy.latent_formats.SDXL
    assert type(loaded.clip.cond_stage_model) is comfy.sdxl_clip.SDXLClipModel
    assert loaded.model.model.model_type is comfy.model_base.ModelType.EPS
    loud = [
        line
        for line in loaded.log
        if any(word in line.lower() for word in ("missing", "unexpected", "left over"))
    ]
    optional = ("text_projection", "logit_scale")  # no file of SDXL has those of its first encoder
    assert all(any(word in line for word in optional) for line in loud), loud


@pytest.mark.parametrize("text", [*CAPTIONS, ""])
def test_text_states_and_pooled_are_the_narrow_ones(loaded, mini, text):
    prompts, _ = mini.encoders.encode([text])
    wanted, wanted_pooled = wide(prompts)
    states, pooled = encoded(loaded, text)
    assert relative(states[..., :768], wanted[..., :768]) < TOLERANCE
    assert relative(states[..., 768:], wanted[..., 768:]) < TOLERANCE
    assert relative(pooled, wanted_pooled) < TOLERANCE


@pytest.mark.parametrize("sizes", [None, (640.0, 512.0, 32.0, 8.0, 1024.0, 768.0)])
def test_the_unet_predicts_what_the_narrow_one_does(loaded, mini, sizes):
    """At the picture's own sizes, and at others in CLIPTextEncodeSDXL's order."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([loaded.model])
    prompts, _ = mini.encoders.encode(CAPTIONS)
    noisy = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(7))
    times = torch.tensor([700, 90])
    narrow = plain_sizes(2) if sizes is None else torch.tensor(sizes).expand(2, -1)
    names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
    given = dict(zip(names, narrow[0].tolist(), strict=True))
    context, pooled = wide(prompts)
    base = loaded.model.model
    with torch.inference_mode():
        y = base.encode_adm(pooled_output=pooled, device=context.device, **given)
        found = base.diffusion_model(noisy, times, context=context, y=y)
        wanted = predict(mini.unet, noisy, times, prompts, narrow)
    assert relative(found, wanted) < TOLERANCE


def test_host_and_diffusers_draw_the_same_picture(loaded, mini):
    import comfy.sample

    import nodes

    empty = {"samples": torch.zeros(1, 4, 12, 12)}
    positive, negative = (
        nodes.CLIPTextEncode().encode(loaded.clip, text)[0] for text in (CAPTIONS[0], "")
    )
    [latent] = nodes.KSampler().sample(
        loaded.model, SEED, STEPS, GUIDANCE, "euler", "simple", positive, negative, empty
    )
    [found] = nodes.VAEDecode().decode(loaded.vae, latent)
    noise = comfy.sample.prepare_noise(empty["samples"], SEED)
    prompts = [mini.encoders.encode([text])[0] for text in (CAPTIONS[0], "")]
    wanted = pipeline.generate(pipeline.pipeline(), *prompts, noise, STEPS, GUIDANCE)
    error = float((found.movedim(-1, 1) - wanted).detach().square().mean())
    assert float(wanted.std()) > 0.05  # a picture, not a flat field
    assert -10 * math.log10(error) >= 35


def test_the_autoencoder_of_the_host_takes_a_picture_to_unit_latents(loaded, mini):
    import nodes
    from image_to_prompt.tests.miniature.drawings.world import SIDE

    picture = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(3))
    [latent] = nodes.VAEEncode().encode(loaded.vae, picture)
    found = loaded.model.model.process_latent_in(latent["samples"])
    wanted = mini.taesd.encode(2 * picture.movedim(-1, 1) - 1).latents / mini.latent_std
    assert relative(found, wanted) < TOLERANCE
