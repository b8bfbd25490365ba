"""Unfinished fits: the same one goes on, others are left alone, a full disk stops nothing.

Random weights: wiring only.
"""

from __future__ import annotations

import os

import pytest
import torch

from image_to_prompt.projection.diffusion.prompt_form import Prompts
from image_to_prompt.tests.host import small_unet
from image_to_prompt.tests.host.training_tools import QUICK, ending, make_tools


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.fixture(autouse=True)
def quick(host, monkeypatch):
    presets = {"embedding + cross-attention": QUICK}
    monkeypatch.setattr(host.nodes.fit, "FIT", presets)


@pytest.fixture
def folder(host):
    """Where they are kept; empty afterwards."""
    path = host.folders / "output" / "unfinished projections"
    path.mkdir(parents=True, exist_ok=True)
    yield path
    for file in path.iterdir():
        file.unlink()


def steps_of(tools, unet=None, **changed):
    """How often the U-Net was called for a gradient: the steps that were left."""
    calls = []
    unet = unet or tools.model.model.diffusion_model
    handle = unet.out.register_forward_hook(lambda *_: calls.append(1))
    try:
        tools.fit(epochs=2, held_out=0.0, **changed)
    finally:
        handle.remove()
    return len(calls)


def begin(tools, **changed):
    with ending(tools, 3, "error"):
        tools.fit(epochs=2, held_out=0.0, **changed)


def patched(tools, strength):
    """The MODEL with a patch on one of the maps, as a LoRA makes it."""
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
    model = tools.model.clone()
    weight = tools.model.get_key_patches(key)[key][0][0]
    assert model.add_patches({key: ("diff", (torch.ones_like(weight),))}, strength)
    return model


@pytest.mark.parametrize("strength", [0.5, 0.6])
def test_another_lora_or_strength_is_another_fit(tools, folder, strength):
    begin(tools, model=patched(tools, 0.5))
    left = 3 if strength == 0.5 else 6
    assert steps_of(tools, model=patched(tools, strength)) == left
    assert len(os.listdir(folder)) == (strength != 0.5)


@pytest.mark.parametrize("name", ["attn2.to_v", "attn1.to_q", "ff.net.2"])
def test_a_model_that_differs_in_any_map_is_another_fit(tools, folder, name):
    key = f"input_blocks.1.1.transformer_blocks.0.{name}.weight"
    state = small_unet.unet_state(small_unet.SMALL)
    other = small_unet.host_model({**state, key: 1.1 * state[key]})
    begin(tools)
    assert steps_of(tools, model=other, unet=other.model.diffusion_model) == 6
    assert len(os.listdir(folder)) == 1


def test_a_fit_of_an_earlier_version_is_told_and_never_taken_for_this_models(
    tools, folder, caplog, monkeypatch
):
    from image_to_prompt.nodes.host.model.fingerprint import attention_fingerprint
    from image_to_prompt.nodes.training import session

    with monkeypatch.context() as earlier:
        earlier.setattr(session, "model_fingerprint", attention_fingerprint)
        begin(tools)
    [file] = folder.iterdir()
    content = file.read_bytes()
    assert "earlier version" not in caplog.text
    assert steps_of(tools) == 6
    assert "earlier version" in caplog.text and file.name in caplog.text
    assert [each.read_bytes() for each in folder.iterdir()] == [content]
    new_name = caplog.text.partition("rename it to ")[2].split()[0]
    file.rename(folder / new_name)
    assert steps_of(tools) == 3, "renamed by a user who knows, it goes on"


def test_no_lora_at_all_is_another_fit(tools, folder):
    begin(tools, model=patched(tools, 0.5))
    assert steps_of(tools) == 6 and len(os.listdir(folder)) == 1


def test_what_was_too_large_for_the_memory_goes_on_in_smaller_parts(tools, folder):
    begin(tools, memory="fast")
    calls = steps_of(tools, memory="low")
    assert calls % 3 == 0 and calls < steps_of(tools, memory="low")
    assert not os.listdir(folder)


def test_a_fit_with_another_text_encoder_leaves_the_first_one_be(tools, folder, monkeypatch):
    begin(tools)
    [first] = folder.iterdir()
    content = first.read_bytes()
    null = Prompts(host_null(tools) + 1, None)
    monkeypatch.setattr("image_to_prompt.nodes.training.session.Models.null_prompt", lambda _: null)
    begin(tools)
    assert first.read_bytes() == content and len(os.listdir(folder)) == 2


def host_null(tools):
    from image_to_prompt.nodes.host import api as host

    return host.encode_text(tools.clip, "").entries[0][0].clone()


def test_a_folder_that_cannot_be_written_to_stops_nothing(tools, folder, caplog):
    folder.rmdir()
    folder.write_bytes(b"a file in its place")
    try:
        _, fitted, _ = tools.fit(epochs=2, held_out=0.0)
        with ending(tools, 3, "interrupt"):  # and the interrupt stays one
            tools.fit(epochs=2, held_out=0.0)
    finally:
        folder.unlink()
        folder.mkdir()
    assert fitted.cross_attention is not None
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("how", ["interrupt", "out of memory in backward"])
def test_a_fit_that_ended_goes_on_bit_for_bit(tools, how, folder):
    _, whole, curve = tools.fit(epochs=2, held_out=0.0)
    assert not os.listdir(folder)
    with ending(tools, 3, how):
        tools.fit(epochs=2, held_out=0.0)
    assert len(os.listdir(folder)) == 1
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


def test_a_crash_loses_little(tools, folder, monkeypatch):
    """A process that dies writes nothing at its end: the file must be there before."""
    from image_to_prompt.nodes.training import unfinished as resume

    monkeypatch.setattr(resume.Unfinished, "__exit__", lambda *_: None)
    with ending(tools, 3, "error"):
        tools.fit(epochs=2, held_out=0.0)
    (left,) = folder.iterdir()
    assert left.stat().st_size > 0
    monkeypatch.undo()
    left.unlink()


def test_a_spoilt_file_of_an_unfinished_fit_is_not_in_the_way(tools, folder, caplog):
    with ending(tools, 2, "error"):
        tools.fit(epochs=1, held_out=0.0)
    (left,) = folder.iterdir()
    left.write_bytes(b"spoilt")
    tools.fit(epochs=1, held_out=0.0)
    assert "anew" in caplog.text
    [aside] = folder.iterdir()
    assert aside.name == f"{left.name}.damaged1" and aside.read_bytes() == b"spoilt"
    assert str(aside) in caplog.text


def test_a_fit_begun_by_another_number_of_threads_goes_on(tools, folder, monkeypatch):
    """Its encoded texts and images differ by rounding."""
    begin(tools)
    null = Prompts(host_null(tools) * (1 + 1e-6), None)
    monkeypatch.setattr("image_to_prompt.nodes.training.session.Models.null_prompt", lambda _: null)
    assert steps_of(tools) == 3
    assert not os.listdir(folder)
