"""Whatever ends a training: the models that came in are as before, and the run can go on.

Random weights: wiring only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.tests.host.training_tools import (
    QUICK,
    QUICK_BLOCKS,
    alive_in_graphs,
    ending,
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
@pytest.mark.parametrize(
    "call, how",
    [
        (0, "interrupt"),
        (0, "error in backward"),
        (1, "out of memory"),
        (2, "error in backward"),
        (3, "interrupt"),
        (3, "out of memory in backward"),
        (4, "interrupt"),
    ],
)
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
def test_a_fit_that_ends_leaves_the_models_as_they_were(tools, before, how, host):
    with ending(tools, 3, how):
        tools.fit(epochs=2, held_out=0.0)
    assert_as_before(tools, before)
    for left in (host.folders / "output" / "unfinished projections").iterdir():
        left.unlink()
