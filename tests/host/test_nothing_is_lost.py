"""Whatever ends a training: the models that came in are as before, and the run can go on.

Random weights: wiring only.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
import torch

from image_to_prompt.tests.host.training_tools import (
    QUICK,
    QUICK_BLOCKS,
    alive_in_graphs,
    leftovers,
    make_tools,
    predicted,
    weights,
)

STEPS = 3
BLOCKS = "transformer blocks"


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.fixture(autouse=True)
def quick(host, monkeypatch):
    for module, name in ((host.nodes.refine, "REFINE"), (host.nodes.fit, "FIT")):
        presets = {"embedding + cross-attention": QUICK, BLOCKS: QUICK_BLOCKS}
        monkeypatch.setattr(module, name, presets)


def give(tools):
    """What every incoming model gives, patched or not."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        return [
            predicted(tools.model),
            tools.clip_vision.encode_image(tools.picture).image_embeds,
            tools.vae.decode(latents),
            tools.vae.encode(tools.picture),
        ]


@pytest.fixture(scope="module")
def before(tools):
    return give(tools), [weights(module) for module in modules(tools)]


def modules(tools):
    return tools.model.model, tools.clip_vision.model, tools.vae.first_stage_model


def assert_as_before(tools, before):
    assert not leftovers(*modules(tools))
    for now, then in zip(give(tools), before[0], strict=True):
        assert torch.equal(now, then)
    for module, then in zip(modules(tools), before[1], strict=True):
        now = weights(module)
        assert now.keys() == then.keys()
        assert all(torch.equal(now[name], then[name]) for name in now)
    assert not tools.model.patches and not tools.model.object_patches


class Stop(Exception):
    """Something that nobody expects."""


@contextmanager
def ending(tools, step: int, how: str):
    """Ends the training within step `step` (from 0): in the forward or the backward pass."""
    import comfy.model_management

    errors = {
        "interrupt": comfy.model_management.InterruptProcessingException,
        "out of memory": torch.OutOfMemoryError,
    }
    kind = errors.get(how.removesuffix(" in backward"), Stop)
    count = iter(range(1000))

    def fail(_):
        raise kind("as a test")

    def hook(_, __, output):
        if next(count) != step:
            return
        if how.endswith("backward"):
            output.register_hook(fail)
        elif how == "interrupt":
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
        else:
            fail(None)

    handle = tools.model.model.diffusion_model.out.register_forward_hook(hook)
    try:
        with pytest.raises(kind):
            yield
    finally:
        handle.remove()


HOW = ["interrupt", "out of memory", "error", "error in backward", "out of memory in backward"]


def test_a_refinement_leaves_the_models_as_they_were(tools, before):
    model, projection, _ = tools.refine(steps=STEPS)
    assert projection.cross_attention is not None
    assert not torch.equal(predicted(model), before[0][0])
    assert_as_before(tools, before)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", range(STEPS))
def test_so_does_one_that_ends_at_any_step(tools, before, step, how):
    graphs = alive_in_graphs()
    with ending(tools, step, how):
        tools.refine(steps=STEPS)
    assert_as_before(tools, before)
    assert alive_in_graphs() <= graphs


# Calls of the U-Net: where to listen, what is said of the kept text, and step 1's two passes.
@pytest.mark.parametrize("call, how", [
    (0, "interrupt"), (0, "error in backward"), (1, "out of memory"), (2, "error in backward"),
    (3, "interrupt"), (3, "out of memory in backward"), (4, "interrupt"),
])  # fmt: skip
def test_so_does_one_of_whole_blocks_wherever_it_ends(tools, before, call, how):
    graphs = alive_in_graphs()
    with ending(tools, call, how):
        tools.refine(steps=STEPS, preset=BLOCKS)
    assert_as_before(tools, before)
    assert alive_in_graphs() <= graphs


def test_a_refinement_of_whole_blocks_leaves_the_models_as_they_were(tools, before):
    model, projection, _ = tools.refine(steps=STEPS, preset=BLOCKS)
    deltas = projection.cross_attention.deltas
    assert any(".ff.net." in name for name in deltas)
    assert not torch.equal(predicted(model), before[0][0])
    assert_as_before(tools, before)


@pytest.mark.parametrize("how", HOW[-2:])
def test_so_does_one_that_computes_activations_again(tools, before, how):
    plain = tools.refine(steps=1)
    again = tools.refine(steps=1, memory="low")
    assert torch.equal(predicted(plain[0]), predicted(again[0]))
    graphs = alive_in_graphs()
    with ending(tools, 1, how):
        tools.refine(steps=STEPS, memory="low")
    assert_as_before(tools, before)
    assert alive_in_graphs() <= graphs


def test_nothing_of_a_run_stays_in_memory(tools):
    import comfy.model_management

    tools.refine(steps=1)
    graphs, loaded = alive_in_graphs(), len(comfy.model_management.current_loaded_models)
    for _ in range(2):
        tools.refine(steps=1)
    assert alive_in_graphs() <= graphs
    assert len(comfy.model_management.current_loaded_models) <= loaded


@pytest.mark.parametrize("how", ["interrupt", "out of memory in backward"])
def test_a_fit_that_ended_goes_on_bit_for_bit(tools, before, how, host):
    _, whole, curve = tools.fit(epochs=2, held_out=0.0)
    folder = host.folders / "output" / "unfinished projections"
    assert not os.listdir(folder)
    with ending(tools, 3, how):
        tools.fit(epochs=2, held_out=0.0)
    assert len(os.listdir(folder)) == 1
    assert_as_before(tools, before)
    calls = []
    unet = tools.model.model.diffusion_model
    handle = unet.out.register_forward_hook(lambda *_: calls.append(1))
    _, resumed, curve_again = tools.fit(epochs=2, held_out=0.0)
    handle.remove()
    assert len(calls) == 3, "3 of 6 steps were left"
    assert torch.equal(curve, curve_again)
    assert torch.equal(resumed.residual.shift, whole.residual.shift)
    for name, delta in whole.cross_attention.deltas.items():
        assert torch.equal(delta.weight(), resumed.cross_attention.deltas[name].weight())
    assert not os.listdir(folder)


def test_a_crash_loses_little(tools, host, monkeypatch):
    """A process that dies writes nothing at its end: the file must be there before."""
    from image_to_prompt.nodes import resume

    monkeypatch.setattr(resume.Unfinished, "__exit__", lambda *_: None)
    with ending(tools, 3, "error"):
        tools.fit(epochs=2, held_out=0.0)
    (left,) = (host.folders / "output" / "unfinished projections").iterdir()
    assert left.stat().st_size > 0
    monkeypatch.undo()
    left.unlink()


def test_a_spoilt_file_of_an_unfinished_fit_is_not_in_the_way(tools, host, caplog):
    folder = host.folders / "output" / "unfinished projections"
    with ending(tools, 2, "error"):
        tools.fit(epochs=1, held_out=0.0)
    (left,) = folder.iterdir()
    left.write_bytes(b"spoilt")
    tools.fit(epochs=1, held_out=0.0)
    assert "anew" in caplog.text
    assert not os.listdir(folder)
