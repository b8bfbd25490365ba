"""ImageToPromptLayout and ImageToPromptBlocks, in the real host."""

# ruff: noqa: F811  fixtures of another module
from __future__ import annotations

import pytest
import torch

from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.test_lists import same
from image_to_prompt.tests.host.test_published_arithmetic import (  # noqa: F401  fixtures
    models,
    pictures,
    projection,
    run,
)

BASE, OTHER = "a dog in the snow", "a red house"


@pytest.fixture(scope="module")
def unet(host):
    return small_unet.host_model(small_unet.unet_state(small_unet.SMALL))


@pytest.fixture(scope="module")
def prompts(host, models, projection, pictures):
    """A picture's prompt, a base prompt and another text."""
    import nodes

    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(models[1], text)[0] for text in (BASE, OTHER)]
    return run(host, projection, models, pictures[:1]), *texts


def layout(host, projection, models, pictures, **changes):
    inputs = {
        "tiles": "2x1",
        "mode": "areas",
        "text": "",
        "text_weight": 0.6,
        "strength": 1.0,
        "whole": 0.1,
        "feather": 0.25,
        **changes,
    }
    sockets = {"clip": models[1], "clip_vision": models[2], "image": pictures}
    with torch.inference_mode():
        node = host.classes["ImageToPromptLayout"]
        return node.execute(projection=projection, **sockets, **inputs).args[0]


def blocks(host, picture, base, weights="", preset="custom", part="keys and values"):
    with torch.inference_mode():
        node = host.classes["ImageToPromptBlocks"]
        return node.execute(picture, base, preset, weights, part).args[0]


def sampled(unet, positive, negative, cfg=1.0, steps=2, batch=1):
    import nodes

    empty = {"samples": torch.zeros(batch, 4, 16, 16)}
    with torch.inference_mode():
        settings = (unet, 3, steps, cfg, "euler", "simple", positive, negative, empty)
        return nodes.common_ksampler(*settings)[0]["samples"]


# --- layout -------------------------------------------------------------------------------------


def test_each_entry_is_what_embed_gives_for_its_tile(host, models, projection, pictures):
    found = layout(host, projection, models, pictures, text=BASE)
    uncropped = {"text": BASE, "crop": "none"}
    assert len(found) == 3 and found[0][1]["strength"] == pytest.approx(0.1)
    assert same(found[:1], run(host, projection, models, pictures, **uncropped))
    halves = (pictures[:, :, :112], pictures[:, :, 112:])
    for entry, half in zip(found[1:], halves, strict=True):
        assert same([entry], run(host, projection, models, half, **uncropped))
        assert entry[1]["set_area_to_bounds"]
    masks = torch.cat([entry[1]["mask"] for entry in found[1:]])
    assert torch.allclose(masks.sum(dim=0), torch.ones(256, 256), atol=1e-6)
    assert masks[0, 0, 0] == 1 and masks[1, 0, -1] == 1


def test_slots_are_shared_by_the_tiles(host, models, projection, pictures):
    (areas, slots) = (
        layout(host, projection, models, pictures, tiles="2x2", mode=mode, text=BASE, whole=0.0)
        for mode in ("areas", "slots")
    )
    assert len(areas) == 4 and len(slots) == 1
    eos = 6  # start, five words
    states = slots[0][0]
    assert torch.equal(states[:, :eos], areas[0][0][:, :eos])
    bounds = [eos + round(number * (77 - eos) / 4 + 0.49) for number in range(5)]
    for entry, first, last in zip(areas, bounds, bounds[1:], strict=False):
        middle = (first + last) // 2
        assert torch.equal(states[:, middle], entry[0][:, middle])


def test_a_layout_samples_and_the_tiles_act_in_their_place(
    host, models, projection, pictures, unet, prompts
):
    """Another right half of the picture changes the right of the latent only."""
    other = pictures[:1].clone()
    other[:, :, 112:] = pictures[1:2, :, 112:]
    settings = {"whole": 0.0, "feather": 0.0}
    found = [layout(host, projection, models, p, **settings) for p in (pictures[:1], other)]
    one, two = (sampled(unet, each, prompts[1], steps=1) for each in found)
    assert torch.isfinite(one).all()
    assert torch.equal(one[..., :8], two[..., :8])
    assert not torch.allclose(one[..., 8:], two[..., 8:], atol=1e-3)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tiles": "4x4"}, "tiles among"),
        ({"mode": "x"}, "mode among"),
        ({"whole": 1.5}, "whole from 0 to 1"),
        ({"feather": float("nan")}, "feather"),
        ({"strength": float("inf")}, "strength"),
    ],
)
def test_unfit_layouts_are_refused(host, models, projection, pictures, changes, words):
    from image_to_prompt.projection import ImageToPromptError

    with pytest.raises(ImageToPromptError, match=words):
        layout(host, projection, models, pictures, **changes)


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["rest: 1", ", ".join(["1"] * 16), "rest: 1, input 99: 0"])
def test_all_weights_one_is_the_picture_bit_for_bit(host, unet, prompts, weights):
    picture, base, other = prompts
    found = sampled(unet, blocks(host, picture, base, weights), other)
    assert torch.equal(found, sampled(unet, picture, other))


@pytest.mark.parametrize("weights", ["rest: 0", ", ".join(["0"] * 16), "rest: 0, input 99: 1"])
def test_all_weights_zero_is_the_base_bit_for_bit(host, unet, prompts, weights):
    picture, base, other = prompts
    found = sampled(unet, blocks(host, picture, base, weights), other)
    assert torch.equal(found, sampled(unet, base, other))


@pytest.mark.parametrize("part", ["keys and values", "keys", "values"])
def test_a_block_alone_reads_the_other_prompt(host, unet, prompts, part):
    """Against forward hooks on the projections of that block's keys and values."""
    picture, base, other = prompts
    found = sampled(unet, blocks(host, picture, base, "input 1: 0.5, rest: 1", part=part), other)
    attention = unet.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2
    half = base[0][0] + 0.5 * (picture[0][0] - base[0][0])
    modules = {"keys": attention.to_k, "values": attention.to_v}
    hooks = [
        module.register_forward_pre_hook(lambda _, given: (half.to(given[0]),))
        for name, module in modules.items()
        if name in part
    ]
    try:
        wanted = sampled(unet, picture, other)
    finally:
        for hook in hooks:
            hook.remove()
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, sampled(unet, picture, other), atol=1e-3)


def test_the_negative_and_the_model_stay_as_they_are(host, unet, prompts):
    """In one step of guidance: found = negative + cfg (hooked - negative)."""
    picture, base, other = prompts
    hooked = blocks(host, picture, base, "input 1: 1")
    before = sampled(unet, picture, other)
    parts = [sampled(unet, each, other, steps=1) for each in (hooked, other)]
    found = sampled(unet, hooked, other, cfg=2.0, steps=1)
    assert torch.allclose(found, parts[1] + 2 * (parts[0] - parts[1]), atol=1e-3)
    assert torch.equal(before, sampled(unet, picture, other))
    assert "hooks" not in picture[0][1]


def test_hooks_of_two_nodes_act_one_after_the_other(host, unet, prompts):
    picture, base, other = prompts
    once = blocks(host, picture, base, "input 1: 0, rest: 1")
    twice = blocks(host, once, base, "middle: 0, rest: 1")
    both = blocks(host, picture, base, "input 1: 0, middle: 0, rest: 1")
    assert len(twice[0][1]["hooks"].hooks) == 2 and len(once[0][1]["hooks"].hooks) == 1
    assert torch.equal(sampled(unet, twice, other), sampled(unet, both, other))


def test_rows_of_a_batch_keep_their_own_prompts(host, models, projection, pictures, unet, prompts):
    _, base, other = prompts
    both = run(host, projection, models, pictures[:2])
    found = sampled(unet, blocks(host, both, base, "input 1: 1"), other, batch=2)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    rows = sampled(unet, blocks(host, both, both, "input 1: 0.5"), other, batch=2)
    assert torch.allclose(rows, sampled(unet, both, other, batch=2), atol=1e-4)


def test_tokens_behind_the_prompt_stay(host, prompts):
    """What core's Concat puts behind; and a base of another length, in SDXL's width."""
    from image_to_prompt.nodes.host.model.block_hook import BlockPatch
    from image_to_prompt.projection.prompt.block_weights import preset_weights

    patch = BlockPatch(preset_weights("style", 2048), torch.zeros(1, 154, 2048), 77, "values")
    given = torch.ones(4, 100, 2048)
    options = {"block": ("output", 1), "cond_or_uncond": [0, 1]}
    query, keys, values = patch(given, given, given, options)
    assert query is given and keys is given and values is given
    options["block"] = ("output", 2)
    _, keys, values = patch(given, given, given, options)
    assert keys.shape == values.shape and keys.shape[1] % 100 == 0
    assert torch.equal(values[:, :154], torch.zeros(4, 154, 2048))
    assert torch.equal(values[:, 154:177], torch.ones(4, 23, 2048))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"picture": None}, "NoneType"),
        ({"picture": []}, "0 entries"),
        ({"base": [[torch.zeros(1, 77, 640), {}]]}, "widths 640 and 768"),
        ({"base": [[torch.full((1, 77, 768), float("nan")), {}]]}, "finite prompts"),
        ({"base": [[torch.zeros(1, 77, 768), {}]] * 2}, "2 parts"),
        ({"weights": "left 3: 1"}, "weights on ImageToPromptBlocks"),
        ({"preset": "mood"}, "preset among"),
        ({"part": "queries"}, "part among"),
        ({"weights": 3}, "weights as a text"),
    ],
)
def test_unfit_blocks_are_refused(host, prompts, changes, words):
    from image_to_prompt.projection import ImageToPromptError

    inputs = {"picture": prompts[0], "base": prompts[1], "weights": "rest: 0.5", **changes}
    with pytest.raises(ImageToPromptError, match=words):
        blocks(host, **inputs)
