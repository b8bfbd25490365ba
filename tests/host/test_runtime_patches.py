"""Training on a MODEL with run-time patches: core's own nodes, and one like IPAdapter's.

Random weights: wiring and arithmetic only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.runtime_patches import (
    CHANGING,
    GUIDANCE,
    deep_shrink,
    free_u,
    free_u_v2,
    hyper_tile,
    ip_adapter,
    token_merging,
)
from image_to_prompt.tests.host.training_tools import QUICK, generator, leftovers, make_tools


@pytest.fixture(scope="module")
def model(host):
    return small_unet.host_model(small_unet.unet_state(small_unet.TWO_WIDTHS))


def denoiser_of(model, **options):
    from image_to_prompt.nodes.host.unet import HostDenoiser

    return HostDenoiser(model, 768, **options)


def inputs(times=(950, 120)):
    noisy = torch.randn(len(times), 4, 16, 16, generator=generator(1))
    context = torch.randn(len(times), 77, 768, generator=generator(2))
    return noisy, torch.tensor(times), context


def predict(model, times=(950, 120), **options):
    with torch.inference_mode(False), torch.no_grad():
        return denoiser_of(model, **options).predict(*inputs(times), {})


def gradient(denoiser):
    with torch.inference_mode(False), torch.enable_grad():
        noisy, times, context = inputs()
        context.requires_grad_(True)
        denoiser.predict(noisy, times, context, {}).square().mean().backward()
        return context.grad


def sampled(model, time, noisy, context):
    """Epsilon as the host's own sampler asks for it, patches and all."""
    import comfy.model_management
    import comfy.samplers

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        model.pre_run()
        sigma = model.get_model_object("model_sampling").sigmas[time][None]
        scaled = noisy * (1 + sigma**2).sqrt()
        conds = [{"model_conds": {"c_crossattn": conditioning(context)}, "uuid": 7}]
        options = {**model.model_options, "sample_sigmas": sigma}
        clean = comfy.samplers.calc_cond_batch(model.model, [conds], scaled, sigma, options)[0]
        model.cleanup()
        return (scaled - clean) / sigma


def conditioning(context):
    import comfy.conds

    return comfy.conds.CONDCrossAttn(context)


DETERMINISTIC = sorted(CHANGING.keys() - {"HyperTile", "token merging"})


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("time", [950, 120])
def test_it_predicts_what_the_host_samples_with(model, name, time):
    patched = CHANGING[name](model)
    noisy, _, context = inputs((time,))
    ours = predict(patched, (time,))
    assert torch.allclose(ours, sampled(patched, time, noisy, context), atol=2e-4)


@pytest.mark.parametrize("name", CHANGING)
def test_the_patch_is_part_of_the_training(model, name):
    assert not torch.allclose(predict(CHANGING[name](model)), predict(model), rtol=1e-3)


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance_is_for_sampling_and_changes_nothing_in_training(model, name):
    assert torch.allclose(predict(GUIDANCE[name](model)), predict(model), atol=1e-5)


@pytest.mark.parametrize("name", CHANGING)
def test_a_batch_of_several_times_is_each_of_its_times_alone(model, name):
    """Patches read one sigma: that of the picture that they are called for."""
    patched = CHANGING[name](model)
    both = predict(patched)
    noisy, times, context = inputs()
    denoiser = denoiser_of(patched)
    with torch.inference_mode(False), torch.no_grad():
        last = denoiser.predict(noisy[1:], times[1:], context[1:], {})
    assert torch.allclose(both[1:], last, atol=1e-5)


@pytest.mark.parametrize("name", CHANGING)
def test_the_gradient_is_the_finite_difference(model, name):
    denoiser = denoiser_of(CHANGING[name](model))
    slope = gradient(denoiser)
    noisy, times, context = inputs()
    direction = torch.randn(context.shape, generator=generator(6))

    def loss(step):
        return denoiser.predict(noisy, times, context + step * direction, {}).square().mean()

    with torch.inference_mode(False), torch.no_grad():
        numeric = (loss(1e-2) - loss(-1e-2)).double() / 2e-2
    assert torch.isclose(numeric.float(), (slope * direction).sum(), rtol=0.03)


@pytest.mark.parametrize("name", CHANGING)
def test_checkpoints_give_the_same_gradient(model, name):
    patched = CHANGING[name](model)
    saved = gradient(denoiser_of(patched))
    assert torch.equal(saved, gradient(denoiser_of(patched, gradient_checkpointing=True)))
    assert not leftovers(model.model)


def test_random_patches_leave_the_hosts_random_numbers_alone(model):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    predict(token_merging(model))
    assert torch.equal(torch.rand(3), expected)


# --- what is refused --------------------------------------------------------------------------


def in_place_in_a_block(model):
    patched = model.clone()
    patched.set_model_attn1_output_patch(lambda n, options: torch.exp(n).mul_(2.0))
    return patched


def without_gradient(model):
    patched = model.clone()
    patched.set_model_attn2_patch(lambda n, c, v, options: (n, c.detach(), v.detach()))
    return patched


def with_a_missing_option(model):
    def needs_step(h, options):
        return h * options["step_of_another_pack"]

    patched = model.clone()
    patched.set_model_input_block_patch(needs_step)
    return patched


REFUSED = {
    "in place": (in_place_in_a_block, "in_place_in_a_block"),
    "no gradient": (without_gradient, "without_gradient"),
    "an option of another pack": (with_a_missing_option, "step_of_another_pack"),
}


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_with_is_refused_by_name(tools, name, memory, host, monkeypatch):
    monkeypatch.setattr(host.nodes.refine, "REFINE", {"embedding + cross-attention": QUICK})
    patch, says = REFUSED[name]
    with pytest.raises(ImageToPromptError, match=says) as refusal:
        tools.refine(model=patch(tools.model), memory=memory)
    assert "socket model" in str(refusal.value)
    assert not leftovers(tools.model.model)


def test_an_interrupt_or_a_lack_of_memory_is_no_refusal(model):
    import comfy.model_management

    for kind in (comfy.model_management.InterruptProcessingException, torch.OutOfMemoryError):

        def fail(*_, kind=kind):
            raise kind("as a test")

        patched = model.clone()
        patched.set_model_input_block_patch(fail)
        with pytest.raises(kind):
            predict(patched)


@pytest.mark.parametrize("name", CHANGING)
def test_a_refinement_runs_with_it(tools, name, host, monkeypatch):
    monkeypatch.setattr(host.nodes.refine, "REFINE", {"embedding + cross-attention": QUICK})
    patched = CHANGING[name](tools.model)
    refined, projection, _ = tools.refine(model=patched, steps=1)
    assert projection.cross_attention is not None
    assert refined.model_options["transformer_options"].keys() == (
        patched.model_options["transformer_options"].keys()
    )


# --- what makes another model of it -----------------------------------------------------------


def fingerprint(model):
    from image_to_prompt.nodes.host.model.fingerprint import model_fingerprint

    return model_fingerprint(model)


@pytest.mark.parametrize("name", CHANGING)
def test_a_run_time_patch_makes_another_model(model, name):
    assert fingerprint(CHANGING[name](model)) != fingerprint(model)
    assert fingerprint(CHANGING[name](model)) == fingerprint(CHANGING[name](model))


@pytest.mark.parametrize(
    "one, other",
    [
        (lambda model: free_u_v2(model), lambda model: free_u_v2(model, b2=1.3)),
        (lambda model: free_u_v2(model), free_u),
        (deep_shrink, lambda model: deep_shrink(model, end=0.5)),
        (ip_adapter, lambda model: ip_adapter(model, weight=0.7)),
        (hyper_tile, lambda model: hyper_tile(model, swap_size=2)),
    ],
)
def test_so_do_its_settings(model, one, other):
    assert fingerprint(one(model)) != fingerprint(other(model))


@pytest.mark.parametrize("name", CHANGING)
def test_what_a_patch_remembers_of_a_run_does_not(model, name):
    patched = CHANGING[name](model)
    before = fingerprint(patched)
    predict(patched)
    assert fingerprint(patched) == before
