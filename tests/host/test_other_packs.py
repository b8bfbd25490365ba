"""What other packs have set on a MODEL survives a training run and Apply Projection.

Random weights: wiring only.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import FullDelta, UNetDeltas
from image_to_prompt.tests.host.training_tools import (
    QUICK,
    Stop,
    ending,
    make_tools,
    predicted,
)

BLOCKS = ("input_blocks.1.0", "input_blocks.1.1", "middle_block.1", "out")
WRAPPED = "diffusion_model"
MAP = "middle_block.1.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.fixture(autouse=True)
def quick(host, monkeypatch):
    monkeypatch.setattr(host.nodes.refine, "REFINE", {"embedding + cross-attention": QUICK})


class Counted:
    """An instance-level forward, as another pack sets it: the module's own, and a count."""

    def __init__(self, module):
        self.own, self.calls = module.forward, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.own(*args, **kwargs)


@pytest.fixture
def forwards(tools):
    """Instance-level forwards on some blocks; away afterwards."""
    unet = tools.model.model.diffusion_model
    modules = [unet.get_submodule(name) for name in BLOCKS]
    for module in modules:
        module.forward = Counted(module)
    yield [(module, module.forward) for module in modules]
    for module in modules:
        vars(module).pop("forward", None)


def assert_in_place(forwards):
    for module, forward in forwards:
        assert vars(module).get("forward") is forward
        assert forward.calls > 0


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_an_instance_level_forward_runs_and_survives_a_refinement(tools, forwards, memory):
    tools.refine(steps=1, memory=memory)
    assert_in_place(forwards)


@pytest.mark.parametrize("how", ["error", "error in backward", "interrupt"])
def test_it_survives_a_refinement_that_ends_early(tools, forwards, how):
    with ending(tools, 0, how):
        tools.refine(steps=1, memory="low")
    assert_in_place(forwards)


def test_an_instance_level_forward_is_trained_with(tools):
    """It changes what a block gives, so the training too, with checkpoints and without."""
    block = tools.model.model.diffusion_model.get_submodule("middle_block.1")
    plain = tools.refine(steps=1)[1].residual.shift
    own = block.forward
    block.forward = lambda *args, **kwargs: 0.5 * own(*args, **kwargs)
    try:
        shifts = [tools.refine(steps=1, memory=m)[1].residual.shift for m in ("fast", "low")]
    finally:
        vars(block).pop("forward")
    assert torch.equal(*shifts)
    assert not torch.equal(shifts[0], plain)


def test_it_survives_apply_projection(tools, forwards):
    applied(tools, tools.model)
    assert all(vars(module).get("forward") is forward for module, forward in forwards)


def applied(tools, model):
    fitted = UNetDeltas({MAP: FullDelta(torch.full((320, 768), 0.1))})
    projection = replace(tools.projection, cross_attention=fitted)
    node = tools.host.classes["ApplyProjection"]
    with torch.inference_mode():
        return node.execute(model, projection, 1.0).args[0]


def patched(tools, calls):
    """A MODEL with an object patch, and a wrapper that counts the U-Net's calls."""
    import comfy.patcher_extension

    def wrapper(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs)

    model = tools.model.clone()
    out = model.get_model_object("diffusion_model.out.2")
    model.add_object_patch("diffusion_model.out.2", Doubled(out))
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, "another pack", wrapper)
    return model, kind, wrapper


class Doubled(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return 2 * self.module(x)


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_object_patches_and_wrappers_survive(tools, memory):
    plain = predicted(tools.model)
    model, kind, wrapper = patched(tools, [])
    before, objects = predicted(model), dict(model.object_patches)
    refined, projection, _ = tools.refine(model=model, steps=1, memory=memory)
    for each in (model, refined, applied(tools, model)):
        assert each.object_patches == objects
        assert each.wrappers[kind]["another pack"] == [wrapper]
    assert torch.equal(predicted(model), before)
    assert torch.equal(predicted(tools.model), plain) and not torch.equal(plain, before)
    without = tools.refine(steps=1, memory=memory)[1]
    assert not torch.equal(projection.residual.shift, without.residual.shift)


def test_wrappers_that_only_sampling_uses_are_told(tools, caplog):
    model = patched(tools, [])[0]
    tools.refine(model=model, steps=0)
    assert "only sampling uses" in caplog.text and "diffusion_model" in caplog.text
    caplog.clear()
    tools.refine(steps=0)
    assert "only sampling uses" not in caplog.text


def test_a_failure_in_another_packs_forward_is_its_own(tools):
    block = tools.model.model.diffusion_model.get_submodule("middle_block.1")

    def fail(*_, **__):
        raise Stop("another pack")

    block.forward = fail
    try:
        with pytest.raises(Stop):
            tools.refine(steps=1, memory="low")
        assert vars(block)["forward"] is fail
    finally:
        vars(block).pop("forward")
