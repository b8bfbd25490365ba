"""Core's conditioning nodes and context windows on masks, frames, layouts and blocks."""

# ruff: noqa: F811  fixtures of another module
from __future__ import annotations

import pytest
import torch

from image_to_prompt.tests.host.test_layout_and_blocks import (  # noqa: F401  fixtures
    blocks,
    layout,
    prompts,
    sampled,
    unet,
)
from image_to_prompt.tests.host.test_published_arithmetic import (  # noqa: F401  fixtures
    models,
    pictures,
    projection,
    run,
)


@pytest.fixture(scope="module")
def outputs(host, models, projection, pictures, prompts):
    """A CONDITIONING of each kind."""
    picture, base, _ = prompts
    travel = {"images": "travel between images", "frames": "0, 1, 3"}
    mask = torch.ones(1, 224, 224)
    mask[:, :, 100:] = 0
    return {
        "mask": run(host, projection, models, pictures[:1], mask=mask),
        "frames": run(host, projection, models, pictures, **travel),
        "layout": layout(host, projection, models, pictures[:1]),
        "slots": layout(host, projection, models, pictures[:1], mode="slots"),
        "blocks": blocks(host, picture, base, preset="style"),
        "keys": blocks(host, picture, base, preset="composition", part="keys"),
    }


def core_nodes():
    import nodes

    mask = torch.zeros(1, 128, 128)
    mask[:, :64] = 1
    return {
        "Combine": lambda c, o: nodes.ConditioningCombine().combine(c, o)[0],
        "SetMask": lambda c, o: nodes.ConditioningSetMask().append(c, mask, "default", 0.8)[0],
        "SetArea": lambda c, o: nodes.ConditioningSetArea().append(c, 64, 64, 0, 0, 1.0)[0],
        "SetTimestepRange": lambda c, o: nodes.ConditioningSetTimestepRange().set_range(
            c, 0.5, 1.0
        )[0],
        "Average": lambda c, o: nodes.ConditioningAverage().addWeighted(c, o, 0.7)[0],
        "Concat": lambda c, o: nodes.ConditioningConcat().concat(c, o)[0],
    }


NAMES = ("Combine", "SetMask", "SetArea", "SetTimestepRange", "Average", "Concat")


@pytest.fixture(scope="module")
def plain(outputs, unet, prompts):
    """What each of them samples as it is, in one step."""
    return {kind: one_step(unet, each, prompts[2]) for kind, each in outputs.items()}


def one_step(unet, conditioning, negative):
    return sampled(unet, conditioning, negative, steps=1, batch=conditioning[0][0].shape[0])


@pytest.mark.parametrize("name", NAMES)
def test_cores_nodes_act_on_every_output(outputs, plain, unet, prompts, name):
    other = prompts[2]
    for kind, conditioning in outputs.items():
        rows = conditioning[0][0].shape[0]
        # As core asks of any batch: Concat joins rows with rows.
        given = [[other[0][0].expand(rows, -1, -1), other[0][1]]] if name == "Concat" else other
        with torch.inference_mode():
            changed = core_nodes()[name](conditioning, given)
        found = one_step(unet, changed, other)
        assert torch.isfinite(found).all(), kind
        assert not torch.allclose(found, plain[kind], atol=1e-4), kind


@pytest.mark.parametrize("kind", ["layout", "blocks"])
def test_areas_and_hooks_stay_beside_a_negative(outputs, unet, prompts, kind):
    """Core gives the negative each area of the positive; guidance 2 in one step."""
    other = prompts[2]
    alone = one_step(unet, outputs[kind], other), one_step(unet, other, other)
    found = sampled(unet, outputs[kind], other, cfg=2.0, steps=1)
    assert torch.isfinite(found).all()
    if kind == "blocks":  # without areas both are sampled whole
        assert torch.allclose(found, alone[1] + 2 * (alone[0] - alone[1]), atol=1e-3)
    else:
        assert not torch.allclose(found, alone[0], atol=1e-3)


def test_context_windows_take_each_frame_its_row(host, models, projection, pictures, unet, prompts):
    """The host's windows over a batch of frames, here of four: a frame has its own prompt."""
    import comfy.context_windows

    if not hasattr(comfy.context_windows.IndexListContextHandler, "_build_window_state"):
        pytest.skip("this host's windows compare all sigmas with a batch's and take none")
    travel = {"images": "travel between images", "frames": "0, 7"}
    frames = run(host, projection, models, pictures[:2], **travel)
    windowed = unet.clone()
    handler = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=4,
        context_overlap=0,
        dim=0,
    )
    windowed.model_options["context_handler"] = handler
    comfy.context_windows.create_prepare_sampling_wrapper(windowed)
    whole = sampled(unet, frames, prompts[2], steps=1, batch=8)
    found = sampled(windowed, frames, prompts[2], steps=1, batch=8)
    assert torch.allclose(found, whole, atol=1e-3)
