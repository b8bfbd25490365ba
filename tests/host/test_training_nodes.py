"""OnlineRefine, FitProjection, ApplyProjection and what they hand on, in the real host.

Random weights: wiring and laws only, nothing about pictures.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from image_to_prompt.projection import (
    TEXT_ONLY,
    ImageToPromptError,
    PreservationConfig,
    load_projection,
    phrases,
)
from image_to_prompt.tests.host.training_tools import (
    PRESET,
    QUICK,
    QUICK_BLOCKS,
    QUICK_FULL,
    generator,
    make_tools,
    predicted,
)

BLOCKS = "transformer blocks"


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.fixture(autouse=True)
def quick(host, monkeypatch):
    presets = {PRESET: QUICK, "full": QUICK_FULL, BLOCKS: QUICK_BLOCKS}
    for module, name in ((host.nodes.refine, "REFINE"), (host.nodes.fit, "FIT")):
        monkeypatch.setattr(module, name, presets)
    monkeypatch.setattr(host.nodes.fit, "PRESETS", (TEXT_ONLY, *presets))


@pytest.fixture(scope="module")
def refined(tools, host):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.nodes.refine, "REFINE", {PRESET: QUICK})
        return tools.refine()


def apply(tools, model, projection, strength):
    with torch.inference_mode():
        return tools.host.classes["ApplyProjection"].execute(model, projection, strength).args[0]


def test_the_node_schemas_have_the_promised_sockets(host):
    common = ["model", "vae", "clip", "clip_vision", "projection", "image"]
    widgets = ["preset", "learning_rate", "seed"]
    for node_id, count in (("OnlineRefine", "steps"), ("FitProjection", "epochs")):
        schema = host.classes[node_id].define_schema()
        required = [i.id for i in schema.inputs if not i.optional]
        assert required == [*common, count, *widgets]
        assert [o.display_name for o in schema.outputs] == ["MODEL", "PROJECTION", "IMAGE"]
    schema = host.classes["ApplyProjection"].define_schema()
    assert [i.id for i in schema.inputs] == ["model", "projection", "strength"]


@pytest.mark.parametrize("preset", [PRESET, "full", BLOCKS])
def test_no_steps_change_nothing(tools, preset):
    """Zero steps are the closed form bit for bit."""
    for model, projection, curve in (
        tools.refine(steps=0, preset=PRESET if preset == "full" else preset),
        tools.fit(epochs=0, preset=preset),
    ):
        assert torch.equal(predicted(model), predicted(tools.model))
        assert torch.equal(tools.embed(projection), tools.embed(tools.projection))
        assert curve.shape[0] == 1 and curve.shape[-1] == 3


def test_the_same_seed_gives_the_same_result_and_another_one_does_not(tools, refined):
    again, other = tools.refine(), tools.refine(seed=2)
    assert torch.equal(predicted(refined[0]), predicted(again[0]))
    assert torch.equal(tools.embed(refined[1]), tools.embed(again[1]))
    assert torch.equal(refined[2], again[2])
    assert not torch.equal(tools.embed(refined[1]), tools.embed(other[1]))


def test_so_does_it_where_whole_blocks_are_trained(tools):
    mine, again, other = (tools.refine(preset=BLOCKS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(predicted(mine[0]), predicted(again[0]))
    assert not torch.equal(predicted(mine[0]), predicted(other[0]))


def test_the_texts_that_are_kept_are_the_users_own(tools):
    given = " in the snow \n\nin the rain\n"
    mine = tools.refine(preset=BLOCKS, keep_texts=given)
    again = tools.refine(preset=BLOCKS, keep_texts="in the snow\nin the rain")
    other = tools.refine(preset=BLOCKS)
    assert torch.equal(predicted(mine[0]), predicted(again[0]))
    assert not torch.equal(predicted(mine[0]), predicted(other[0]))


def test_of_a_long_kept_text_it_is_said_what_is_kept(tools, caplog):
    tools.refine(preset=BLOCKS, steps=1, keep_texts="snow\n" + "rain " * 80)
    said = [record.getMessage() for record in caplog.records if "75 tokens" in record.getMessage()]
    assert len(said) == 1 and "rain" in said[0]


def test_kept_texts_that_are_none_are_an_error(tools):
    with pytest.raises(ImageToPromptError, match="keep_texts as a text"):
        tools.refine(preset=BLOCKS, keep_texts=3)


def test_a_fit_that_gained_nothing_says_so(host, caplog):
    for losses, warned in (([0.2, 0.3, 0.2], True), ([0.2, 0.1], False), ([0.2], False)):
        caplog.clear()
        run = SimpleNamespace(held_out_losses=list(enumerate(losses)))
        host.nodes.training.session.warn_unless_better(run)
        assert ("no epoch lowered the loss" in caplog.text) == warned


def test_the_global_random_state_is_not_touched(tools):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tools.refine(steps=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_prompt_node_uses_a_refined_projection_without_another_socket(tools, refined):
    assert not torch.equal(tools.embed(refined[1]), tools.embed(tools.projection))


def test_the_model_that_comes_out_is_what_apply_gives(tools, refined):
    applied = apply(tools, tools.model, refined[1], 1.0)
    assert torch.equal(predicted(applied), predicted(refined[0]))
    assert not torch.equal(predicted(applied), predicted(tools.model))


def test_strength_0_is_the_model_as_it_came(tools, refined):
    plain = predicted(tools.model)
    assert torch.equal(predicted(apply(tools, tools.model, refined[1], 0.0)), plain)
    half, whole = (predicted(apply(tools, tools.model, refined[1], s)) for s in (0.5, 1.0))
    assert 0 < (half - plain).norm() < (whole - plain).norm()
    assert torch.equal(predicted(tools.model), plain)


def test_a_projection_without_changes_leaves_the_model(tools, caplog):
    applied = apply(tools, tools.model, tools.projection, 1.0)
    assert torch.equal(predicted(applied), predicted(tools.model))
    assert "changes no model" in caplog.text


def test_saved_it_gives_the_same_again_and_as_a_lora_too(tools, host, refined):
    import folder_paths

    import nodes

    loras = host.folders / "models" / "loras"
    folder_paths.add_model_folder_path("loras", str(loras), is_default=True)
    host.classes["SaveProjection"].execute(refined[1], "anna", True)
    (path,) = (host.folders / "models" / "projections").glob("anna_*")
    loaded = load_projection(path)
    assert torch.equal(tools.embed(loaded), tools.embed(refined[1]))
    expected = predicted(refined[0])
    assert torch.equal(predicted(apply(tools, tools.model, loaded, 1.0)), expected)
    (lora,) = loras.glob("anna_*")
    with torch.inference_mode():
        stock = nodes.LoraLoaderModelOnly().load_lora_model_only(tools.model, lora.name, 1.0)[0]
    assert torch.equal(predicted(stock), expected)
    assert lora.stat().st_size < 1e6


def test_a_fitted_encoder_reaches_the_prompt_node(tools):
    _, projection, _ = tools.fit(preset="full")
    assert projection.vision is not None and projection.residual is not None
    plain = torch.equal(tools.embed(projection), tools.embed(tools.projection))
    assert not plain
    pictures = torch.rand(2, 70, 90, 3, generator=generator(3))
    both = tools.embed(projection, pictures)
    assert torch.equal(both[1:], tools.embed(projection, pictures[1:]))


def test_text_alone_fits_without_a_step(tools, host, monkeypatch):
    words = ("a red star", "two cats", "a house by the sea", "snow", "an old green car")
    monkeypatch.setattr(host.nodes.fit, "captions", lambda: words)
    model, projection, _ = tools.fit(preset=TEXT_ONLY)
    assert torch.equal(predicted(model), predicted(tools.model))
    assert projection.bias is not None and projection.cross_attention is None
    assert tools.embed(projection).shape == (1, 77, 768)


def test_captions_are_encoded_as_the_host_encodes_each(tools, host):
    from image_to_prompt.nodes.host.text import caption_states

    words = ["a red star", "", "two cats in the snow"]
    with torch.inference_mode():
        skipping = tools.clip.clone()
        skipping.clip_layer(-2)
        states = caption_states(skipping, words)
        for text, state in zip(words, states, strict=True):
            pooled = tools.clip.encode_from_tokens_scheduled(tools.clip.tokenize(text))
            assert torch.allclose(state, pooled[0][1]["pooled_output"][0], atol=1e-4)


def test_a_lora_that_cannot_be_written_takes_the_projection_file_with_it(
    tools, host, refined, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host.nodes.load_save, "write_new_tensors", full)
    with pytest.raises(ImageToPromptError, match="No space left"):
        host.classes["SaveProjection"].execute(refined[1], "bertha", save_lora=True)
    assert not list((host.folders / "models").rglob("*bertha*"))


def test_previews_are_shown_where_the_user_wants_them(tools, monkeypatch):
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    seen = []
    monkeypatch.setattr(
        comfy.utils.ProgressBar,
        "update_absolute",
        lambda self, value, total=None, preview=None: seen.append((value, total, preview)),
    )
    quiet = tools.refine(steps=2, preview_every=1)
    assert [value for value, *_ in seen] == [0, 1, 2]
    assert not any(preview for *_, preview in seen)
    seen.clear()
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    shown = tools.refine(steps=2, preview_every=2)
    assert [bool(preview) for *_, preview in seen] == [False, False, True]
    assert seen[-1][2][1].size == (8, 8)
    assert torch.equal(tools.embed(quiet[1]), tools.embed(shown[1]))


def test_texts_that_are_kept_are_encoded_as_core_encodes_them(tools, host):
    from image_to_prompt.nodes.training.session import Models

    given = tools.sockets()
    given.pop("image")
    texts = Models(**given).preserved_prompts()
    assert texts.states.shape == (64, 77, 768) and texts.states.dtype == torch.float32
    phrase = phrases(64)[7]
    with torch.inference_mode():
        encoded = tools.clip.encode_from_tokens_scheduled(tools.clip.tokenize(phrase))[0][0]
    assert torch.allclose(texts.states[7], encoded[0].float(), atol=1e-4)
    end = texts.eos[7]
    assert not torch.allclose(encoded[0, end - 1], encoded[0, end])


def test_kept_texts_and_pictures_change_what_is_learnt(tools, host, monkeypatch):
    kept = replace(QUICK, preservation=PreservationConfig(preserve_pairs=1, prior_batch_size=1))
    plain = tools.fit()[1]
    presets = {PRESET: kept}
    monkeypatch.setattr(host.nodes.fit, "FIT", presets)
    others = [torch.rand(1, 64, 72, 3, generator=generator(9))]
    texts_only = tools.fit()[1]
    both = tools.fit(regularization_image=torch.cat([others[0], others[0].flip(1)]))[1]
    shifts = [some.residual.shift for some in (plain, texts_only, both)]
    assert not torch.equal(shifts[0], shifts[1]) and not torch.equal(shifts[1], shifts[2])


def test_a_bad_regularization_picture_is_named_by_its_socket(tools):
    with pytest.raises(ImageToPromptError, match="socket regularization_image"):
        tools.fit(regularization_image=torch.rand(1, 8, 8, 3))
