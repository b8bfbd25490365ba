"""U-Nets of SD 2.x and SDXL as the trainer sees them, and their LoRAs in core's own loader.

Random weights: wiring and arithmetic only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError, LoRADelta, UNetDeltas, lora_state
from image_to_prompt.projection.adapters.unet_deltas import is_target
from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.training_tools import generator, leftovers

SIZE = (8, 16)  # latent cells: not square, so that height and width are told apart


@pytest.fixture(scope="module")
def models(host):
    state = small_unet.unet_state(small_unet.SMALL_SD2)
    return {"SD 2.x": small_unet.host_model(state), "SDXL": narrow_sdxl()}


def narrow_sdxl(dtype=None, rounded=None):
    """SDXL a fifth as wide; rounded: the type that its numbers are of, however they are stored."""
    state = small_unet.unet_state(small_unet.NARROW_SDXL)
    if rounded is not None:
        state = {name: weight.to(rounded).float() for name, weight in state.items()}
    return small_unet.host_sdxl(small_unet.NARROW_SDXL, state, dtype)


@pytest.fixture(params=["SD 2.x", "SDXL"])
def case(request, models, host):
    """Model, denoiser and inputs of a family."""
    model = models[request.param]
    return model, denoiser_of(model, request.param), inputs(request.param)


def denoiser_of(model, name, **options):
    from image_to_prompt.nodes.host.model.checks import FAMILIES
    from image_to_prompt.nodes.host.unet import HostDenoiser

    width = {"SD 1.x": 768, "SD 2.x": 1024, "SDXL": 2048}[name]
    return HostDenoiser(model, width, family=FAMILIES[name], **options)


def inputs(name, size=SIZE):
    noisy = torch.randn(2, 4, *size, generator=generator(1))
    width = {"SD 2.x": 1024, "SDXL": 2048}[name]
    context = torch.randn(2, 77, width, generator=generator(2))
    pooled = torch.randn(2, 1280, generator=generator(3)) if name == "SDXL" else None
    return noisy, torch.tensor([500, 20]), context, pooled


def sampled(model, noisy, sigmas, context, pooled):
    """Clean latents as the host's samplers get them, conditioning and sizes included."""
    import comfy.model_management
    import comfy.samplers

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        given = {"cross_attn": context, "model_conds": {}}
        given |= {} if pooled is None else {"pooled_output": pooled}
        conds = comfy.samplers.encode_model_conds(
            model.model.extra_conds, [given], noisy, noisy.device, "positive"
        )[0]["model_conds"]
        return model.model.apply_model(
            noisy, sigmas, **{name: cond.cond for name, cond in conds.items()}
        )


def predicted(denoiser, noisy, times, context, pooled, deltas=None):
    vector = {} if pooled is None else {"pooled": pooled}
    return denoiser.predict(noisy, times, context, deltas or {}, **vector)


def test_the_small_models_are_of_the_hosts_own_classes(models):
    import comfy.model_base
    import comfy.supported_models

    assert type(models["SDXL"].model) is comfy.model_base.SDXL
    assert type(models["SDXL"].model.model_config) is comfy.supported_models.SDXL
    assert type(models["SD 2.x"].model.model_config) is comfy.supported_models.SD20


@pytest.mark.slow
def test_a_file_that_the_host_takes_for_sdxl_has_the_same_maps(models):
    """Of SDXL's width and found by the host's own detection; its LoRA loads by every name."""
    import comfy.sd
    import comfy.supported_models

    model = small_unet.host_model(small_unet.unet_state(small_unet.SMALL_SDXL))
    assert type(model.model.model_config) is comfy.supported_models.SDXL
    shapes = denoiser_of(model, "SDXL").linear_shapes
    assert shapes.keys() == denoiser_of(models["SDXL"], "SDXL").linear_shapes.keys()
    patched = comfy.sd.load_lora_for_models(
        model, None, lora_state(UNetDeltas(change(shapes))), 1.0, 0.0
    )[0]
    assert len(patched.patches) == len(shapes)


def test_it_predicts_what_the_host_samples_with(case):
    model, denoiser, (noisy, times, context, pooled) = case
    sigma = model.model.model_sampling.sigmas[times]
    wide = sigma[:, None, None, None]
    with torch.inference_mode():
        ours = predicted(denoiser, noisy, times, context, pooled)
        scaled = noisy * (1 + wide**2).sqrt()
        clean = sampled(model, scaled, sigma, context, pooled)
    assert torch.allclose(ours, (scaled - clean) / wide, atol=1e-3)


def test_pooled_and_the_pictures_size_are_read(models):
    denoiser = denoiser_of(models["SDXL"], "SDXL")
    noisy, times, context, pooled = inputs("SDXL")
    with torch.no_grad():
        plain = predicted(denoiser, noisy, times, context, pooled)
        other = predicted(denoiser, noisy, times, context, 2 * pooled)
        assert (other - plain).norm() > 1e-4 * plain.norm()
        vector = denoiser._vector(noisy, pooled)
    swapped = denoiser._vector(noisy.transpose(2, 3), pooled)
    assert vector.shape == (2, 2816) and torch.equal(vector[:, :1280], pooled)
    assert not torch.equal(vector[:, 1280:], swapped[:, 1280:])


def change(maps, requires_grad=False, size=0.02):
    deltas = {}
    for number, (name, (out, width)) in enumerate(maps.items()):
        down = size * torch.randn(2, width, generator=generator(number))
        up = size * torch.randn(out, 2, generator=generator(100 + number))
        deltas[name] = LoRADelta(
            down.requires_grad_(requires_grad), up.requires_grad_(requires_grad)
        )
    return deltas


def gradients(denoiser, case_inputs):
    """Of a context, of pooled text where there is one, and of the deltas' B."""
    with torch.inference_mode(False), torch.enable_grad():
        noisy, times, context, pooled = case_inputs
        leaves = [None if t is None else t.clone().requires_grad_(True) for t in (context, pooled)]
        deltas = change(denoiser.linear_shapes, requires_grad=True)
        predicted(denoiser, noisy, times, *leaves, deltas=deltas).square().mean().backward()
        found = [leaf.grad.flatten() for leaf in leaves if leaf is not None]
        return torch.cat([*found, *(delta.up.grad.flatten() for delta in deltas.values())])


def test_every_delta_has_a_gradient_and_checkpoints_do_not_change_it(case, request):
    model, denoiser, given = case
    kept = gradients(denoiser, given)
    name = request.node.callspec.params["case"]
    again = gradients(denoiser_of(model, name, gradient_checkpointing=True), given)
    assert torch.equal(kept, again)
    assert kept.isfinite().all() and (kept != 0).float().mean() > 0.5
    assert not leftovers(model.model)


def test_a_gradient_is_the_finite_difference(models):
    denoiser, (noisy, times, context, pooled) = denoiser_of(models["SDXL"], "SDXL"), inputs("SDXL")
    slope = gradients(denoiser, (noisy, times, context, pooled))
    deltas = change(denoiser.linear_shapes)
    along = torch.randn(pooled.shape, generator=generator(5))

    def loss(step):
        with torch.no_grad():
            found = predicted(denoiser, noisy, times, context, pooled + step * along, deltas)
            return found.double().square().mean()

    numeric = (loss(0.1) - loss(-0.1)) / 0.2
    start = context.numel()
    exact = (slope[start : start + pooled.numel()] * along.flatten()).sum()
    assert torch.isclose(numeric.float(), exact, rtol=0.05)


def test_all_ten_blocks_of_a_place_are_found(models):
    shapes = denoiser_of(models["SDXL"], "SDXL").linear_shapes
    for block in range(10):
        assert f"input_blocks.8.1.transformer_blocks.{block}.attn2.to_k" in shapes
    blocks = 2 * 2 + 2 * 10 + 1 + 1
    assert len(shapes) == 10 * blocks and all(map(is_target, shapes))


def test_a_lora_of_every_map_loads_in_cores_loader(case, host):
    import comfy.sd
    import comfy.utils
    from safetensors.torch import save_file

    model, denoiser, given = case
    deltas = change(denoiser.linear_shapes)
    path = host.folders / "family.safetensors"
    state = lora_state(UNetDeltas(deltas))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    with torch.inference_mode():
        loaded = comfy.utils.load_torch_file(str(path), safe_load=True)
        patched = comfy.sd.load_lora_for_models(model, None, loaded, 1.0, 0.0)[0]
    assert len(patched.patches) == len(deltas) > 9
    assert set(patched.patches) == {f"diffusion_model.{name}.weight" for name in deltas}
    name = "SDXL" if given[3] is not None else "SD 2.x"
    applied = predicted(denoiser_of(patched, name), *given)
    assert torch.allclose(predicted(denoiser, *given, deltas=deltas), applied, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_weights_stored_in_few_bits_have_the_gradients_of_their_values(host, dtype):
    stored = gradients(denoiser_of(narrow_sdxl(dtype), "SDXL"), inputs("SDXL"))
    exact = gradients(denoiser_of(narrow_sdxl(rounded=dtype), "SDXL"), inputs("SDXL"))
    assert torch.allclose(stored, exact, rtol=1e-2, atol=1e-6)


def test_half_precision_arithmetic_does_not_lose_small_gradients(models):
    half = narrow_sdxl(torch.float16)
    half.add_object_patch("manual_cast_dtype", None)  # as a GPU runs it
    ours = gradients(denoiser_of(half, "SDXL"), inputs("SDXL"))
    exact = gradients(denoiser_of(models["SDXL"], "SDXL"), inputs("SDXL"))
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.98
    assert torch.isclose(ours.norm(), exact.norm(), rtol=0.05)


def test_v_prediction_is_recognised_and_a_schedule_without_time_steps_is_refused(models):
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete

    model = models["SD 2.x"]
    velocity = ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    assert denoiser_of(velocity, "SD 2.x").prediction_type == "v"
    for sampling in ("v_prediction", "eps"):
        continuous = ModelSamplingContinuousEDM().patch(model, sampling, 120.0, 0.002)[0]
        with pytest.raises(ImageToPromptError, match="discrete time steps"):
            denoiser_of(continuous, "SD 2.x")


@pytest.mark.parametrize(("given", "wanted"), [("SDXL", "SD 2.x"), ("SD 2.x", "SDXL")])
def test_a_model_of_another_family_is_refused_by_width(models, given, wanted):
    with pytest.raises(ImageToPromptError, match=rf"{wanted}.*socket model"):
        denoiser_of(models[given], wanted)


def test_a_model_with_another_vector_is_refused(models, monkeypatch):
    monkeypatch.setattr(models["SDXL"].model, "adm_channels", 5632)
    with pytest.raises(ImageToPromptError, match="vector of 5632"):
        denoiser_of(models["SDXL"], "SDXL")
    monkeypatch.undo()
    monkeypatch.setattr(models["SDXL"].model.diffusion_model, "num_classes", None)
    with pytest.raises(ImageToPromptError, match="fewer inputs than SDXL"):
        denoiser_of(models["SDXL"], "SDXL")


def test_memory_is_planned_by_size_and_checkpoints_where_one_picture_does_not_fit(
    models, monkeypatch
):
    import comfy.model_management

    patcher = models["SDXL"]
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_, **__: 24e9)
    monkeypatch.setattr(type(patcher), "model_size", lambda _: 5e9)
    automatic = denoiser_of(patcher, "SDXL", gradient_checkpointing=None)
    small, large = (64, 64), (128, 128)
    assert not automatic._checkpoints(small) and automatic._checkpoints(large)
    assert automatic.max_batch_size(small) == 1
    assert automatic.max_batch_size(large) >= 1
    never = denoiser_of(patcher, "SDXL", gradient_checkpointing=False)
    assert never.max_batch_size(large) == 1 and not never._checkpoints(large)
