"""The host's U-Net as the trainer sees it, against the host's own sampling and finite differences.

Random weights: wiring and arithmetic only.
"""

from __future__ import annotations

import gc

import pytest
import torch

from image_to_prompt.projection import FullDelta, ImageToPromptError, LoRADelta, UNetDeltas
from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.training_tools import (
    Stop,
    alive_in_graphs,
    generator,
    leftovers,
    predicted,
    weights,
)

STORED = [None, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.fixture(scope="module")
def state(host):
    return small_unet.unet_state(small_unet.SMALL)


@pytest.fixture(scope="module")
def model(state):
    return small_unet.host_model(state)


@pytest.fixture
def parts(host):
    from image_to_prompt.nodes.host import unet as host_unet
    from image_to_prompt.nodes.host.model import patches as host_patches

    return host_unet, host_patches


def inputs():
    noisy = torch.randn(1, 4, 8, 8, generator=generator(1))
    context = torch.randn(1, 77, 768, generator=generator(2))
    return noisy, torch.tensor([500]), context


def change(maps, requires_grad=False, size=0.02):
    deltas = {}
    for number, (name, (out, width)) in enumerate(maps.items()):
        down = size * torch.randn(2, width, generator=generator(number))
        up = size * torch.randn(out, 2, generator=generator(100 + number))
        deltas[name] = LoRADelta(
            down.requires_grad_(requires_grad), up.requires_grad_(requires_grad)
        )
    return deltas


def gradients(denoiser):
    """Of a context and of one delta, of a plain sum of squares."""
    with torch.inference_mode(False), torch.enable_grad():
        noisy, times, context = inputs()
        context.requires_grad_(True)
        deltas = change(denoiser.linear_shapes, requires_grad=True)
        denoiser.predict(noisy, times, context, deltas).square().mean().backward()
        name = "middle_block.1.transformer_blocks.0.attn2.to_v"
        return torch.cat([context.grad.flatten(), deltas[name].up.grad.flatten()])


def test_it_predicts_what_the_host_samples_with(model, parts):
    denoiser = parts[0].HostDenoiser(model, 768)
    noisy, times, context = inputs()
    sigma = model.model.model_sampling.sigmas[times]
    with torch.inference_mode():
        ours = denoiser.predict(noisy, times, context, {})
        scaled = noisy * (1 + sigma**2).sqrt()
        clean = model.model.apply_model(scaled, sigma, c_crossattn=context)
    assert torch.allclose(ours, (scaled - clean) / sigma, atol=1e-4)


def test_signal_power_is_that_of_stable_diffusion(model, parts):
    power = parts[0].HostDenoiser(model, 768).alphas_cumprod
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(power, (1 - beta).cumprod(0), rtol=1e-4)


@pytest.mark.parametrize("kind", [LoRADelta, FullDelta])
def test_a_change_in_training_is_the_change_of_the_patched_model(model, parts, kind):
    denoiser = parts[0].HostDenoiser(model, 768)
    deltas = change(denoiser.linear_shapes)
    if kind is FullDelta:
        deltas = {name: FullDelta(delta.weight()) for name, delta in deltas.items()}
    patched = parts[1].patch_model(model, UNetDeltas(deltas), 1.0)
    plain = parts[0].HostDenoiser(model, 768).predict(*inputs(), {})
    trained = denoiser.predict(*inputs(), deltas)
    from image_to_prompt.nodes.host.model.checks import ATTACHMENT

    patched.remove_attachments(ATTACHMENT)
    applied = parts[0].HostDenoiser(patched, 768).predict(*inputs(), {})
    assert torch.allclose(trained, applied, atol=1e-5)
    assert (trained - plain).norm() > 1e-3 * plain.norm()


def test_a_gradient_is_the_finite_difference(model, parts):
    denoiser = parts[0].HostDenoiser(model, 768)
    slope = gradients(denoiser)
    noisy, times, context = inputs()
    direction = torch.randn(context.shape, generator=generator(5))
    deltas = change(denoiser.linear_shapes)

    def loss(step):
        return denoiser.predict(noisy, times, context + step * direction, deltas).square().mean()

    step = 1e-2
    numeric = (loss(step) - loss(-step)).double() / (2 * step)
    exact = (slope[: context.numel()] * direction.flatten()).sum()
    assert torch.isclose(numeric.float(), exact, rtol=0.02)


@pytest.mark.parametrize("dtype", STORED[1:], ids=str)
def test_weights_stored_in_few_bits_have_the_gradients_of_their_values(state, parts, dtype):
    stored = parts[0].HostDenoiser(small_unet.host_model(state, dtype), 768)
    rounded = {name: weight.to(dtype).float() for name, weight in state.items()}
    exact = parts[0].HostDenoiser(small_unet.host_model(rounded), 768)
    assert torch.allclose(gradients(stored), gradients(exact), rtol=1e-3, atol=1e-7)


def test_half_precision_arithmetic_does_not_lose_small_gradients(state, parts):
    half = small_unet.host_model(state, torch.float16)
    half.add_object_patch("manual_cast_dtype", None)  # as a GPU runs it
    ours = gradients(parts[0].HostDenoiser(half, 768))
    exact = gradients(parts[0].HostDenoiser(small_unet.host_model(state), 768))
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.99
    assert torch.isclose(ours.norm(), exact.norm(), rtol=0.05)


@pytest.mark.parametrize("inference", [True, False])
def test_activations_computed_again_give_the_same_gradients(state, parts, inference):
    model = small_unet.host_model(state, inference=inference)
    kept = gradients(parts[0].HostDenoiser(model, 768))
    again = gradients(parts[0].HostDenoiser(model, 768, gradient_checkpointing=True))
    assert torch.equal(kept, again)
    assert not leftovers(model.model)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_no_graph_outlives_a_failure_even_before_garbage_is_collected(
    model, parts, gradient_checkpointing, where
):
    def fail(*_):
        raise Stop

    def fail_in_hook(_, __, output):
        output.register_hook(fail) if where == "backward" else fail()

    handle = model.model.diffusion_model.out.register_forward_hook(fail_in_hook)
    before = alive_in_graphs()
    gc.disable()
    try:
        with pytest.raises(Stop) as held:
            gradients(parts[0].HostDenoiser(model, 768, gradient_checkpointing))
        assert alive_in_graphs(collect=False) > before, "the error's traceback holds its frames"
        del held
        assert alive_in_graphs(collect=False) <= before
    finally:
        gc.enable()
        handle.remove()


def test_activations_computed_again_are_not_kept(model, parts):
    def size(gradient_checkpointing):
        kept = []
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(kept.append, id):
            noisy, times, context = inputs()
            denoiser = parts[0].HostDenoiser(
                model, 768, gradient_checkpointing=gradient_checkpointing
            )
            denoiser.predict(noisy, times, context.requires_grad_(True), {})
        return sum(each.nbytes for each in kept)

    assert size(True) < 0.3 * size(False)


@pytest.mark.parametrize("inference", [True, False])
def test_the_model_keeps_its_weights_whatever_mode_it_was_loaded_in(state, parts, inference):
    model = small_unet.host_model(state, inference=inference)
    before, expected = weights(model.model), predicted(model)
    gradients(parts[0].HostDenoiser(model, 768))
    assert all(torch.equal(value, before[name]) for name, value in weights(model.model).items())
    assert torch.equal(predicted(model), expected)
    assert not leftovers(model.model)


def test_autograd_sees_the_weights_in_their_own_memory(model):
    from image_to_prompt.nodes.host.autograd_weights import autograd_weights

    unet = model.model.diffusion_model
    lent = autograd_weights(unet, torch.device("cpu"))
    for name, weight in unet.named_parameters():
        assert lent[name].data_ptr() == weight.data_ptr()
        assert not lent[name].is_inference() and not lent[name].requires_grad


def test_v_prediction_is_recognised(model, parts):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    patched = ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    assert parts[0].HostDenoiser(patched, 768).prediction_type == "v"
    assert parts[0].HostDenoiser(model, 768).prediction_type == "epsilon"
    other = ModelSamplingDiscrete().patch(model, "x0", False)[0]
    with pytest.raises(ImageToPromptError, match="epsilon"):
        parts[0].HostDenoiser(other, 768)


def test_an_unknown_name_is_an_error_and_nothing_is_patched(model, parts):
    name = "input_blocks.9.1.transformer_blocks.0.attn2.to_k"
    unknown = UNetDeltas({name: FullDelta(torch.zeros(320, 768))})
    with pytest.raises(ImageToPromptError, match=r"input_blocks\.9"):
        parts[1].patch_model(model, unknown, 1.0)
    assert not model.patches
