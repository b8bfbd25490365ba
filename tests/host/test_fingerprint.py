"""What tells one MODEL from another: every tensor, every patch, without reading all of it.

Random weights: wiring only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.tests.host import small_unet

BLOCK = "input_blocks.1.1.transformer_blocks.0."


@pytest.fixture(scope="module")
def state(host):
    return small_unet.unet_state(small_unet.SMALL)


@pytest.fixture(scope="module")
def model(state):
    return small_unet.host_model(state)


def fingerprint(model):
    from image_to_prompt.nodes.host.model.fingerprint import model_fingerprint

    return model_fingerprint(model)


def changed(state, name, scale=1.01):
    return small_unet.host_model({**state, name: state[name] * scale + 1e-3})


NAMES = [
    f"{BLOCK}attn2.to_v.weight",
    f"{BLOCK}attn2.to_k.weight",
    f"{BLOCK}attn1.to_q.weight",
    f"{BLOCK}ff.net.0.proj.weight",
    f"{BLOCK}norm2.bias",
    "out.2.weight",
    "out.2.bias",
    "time_embed.0.weight",
    "middle_block.0.in_layers.2.weight",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_counts(state, model, name):
    assert fingerprint(changed(state, name)) != fingerprint(model)


def test_the_same_weights_are_the_same_model(state, model):
    assert fingerprint(small_unet.host_model(state)) == fingerprint(model)
    assert fingerprint(model.clone()) == fingerprint(model)


def test_a_loaded_and_patched_model_is_still_the_same(state):
    import comfy.model_management

    model = small_unet.host_model(state)
    patched, _ = with_lora(model)
    before = fingerprint(patched), fingerprint(model)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patched], force_full_load=True)
    assert (fingerprint(patched), fingerprint(model)) == before
    assert before[0] != before[1]


def with_lora(model, strength=0.5):
    key = f"diffusion_model.{BLOCK}attn2.to_q.weight"
    patched = model.clone()
    assert patched.add_patches({key: ("diff", (torch.ones(320, 320),))}, strength)
    return patched, key


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", NAMES[:4])
def test_a_change_is_seen_on_either_side_of_a_merge(state, model, name, first):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    def merged(one):
        pair = [model, model]
        pair[first] = one
        return ModelMergeSimple().merge(*pair, 0.7)[0]

    assert fingerprint(merged(changed(state, name))) != fingerprint(merged(model))
    assert fingerprint(merged(model)) == fingerprint(merged(model))


def test_few_numbers_are_read(state, model, monkeypatch):
    """Of weights that are mappings of a file only some pages are read."""
    from image_to_prompt.nodes.host.model import fingerprint as module

    counts = []
    hashed = module._hashed

    def count(tensor, numbers):
        counts.append((tensor.numel(), numbers.numel()))
        return hashed(tensor, numbers)

    monkeypatch.setattr(module, "_hashed", count)
    fingerprint(model)
    assert len(counts) == len(state)
    assert max(read for _, read in counts) <= 512
    assert sum(read for _, read in counts) < 0.01 * sum(size for size, _ in counts)


def test_the_earlier_fingerprint_is_the_one_of_earlier_versions(model):
    """Files of unfinished fits are named by it: frozen numbers of a model without randomness."""
    from image_to_prompt.nodes.host.model.fingerprint import attention_fingerprint

    assert attention_fingerprint(Constant()) == FROZEN
    assert attention_fingerprint(model) != fingerprint(model)


class Constant:
    """A model of three tensors, as `get_key_patches` gives one."""

    def get_key_patches(self, prefix):
        ramp = torch.arange(10_000.0).view(100, 100)
        adapter = ("diff", (ramp / 7,))
        half = (0.5, adapter, 1.0, None, None)
        return {
            f"{prefix}input_blocks.0.0.weight": [(ramp, None)],
            f"{prefix}{BLOCK}attn2.to_k.weight": [(ramp + 1, None), half],
            f"{prefix}{BLOCK}attn2.to_v.weight": [(ramp + 2, None)],
            f"{prefix}out.2.bias": [(ramp[0], None), (1.0, adapter, 1.0, None, None)],
        }


FROZEN = "1bc5f4e65192cfc1ec8bce2431578713ab1388b881fed6890608851ab70b52fc"
