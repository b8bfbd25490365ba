"""SD 2.x and SDXL in the host: what is refused, interrupts, and options of the encoders.

The encoders are small and random: wiring only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.tests.host import family_models, small_models
from image_to_prompt.tests.host.family_models import CAPTIONS
from image_to_prompt.tests.host.family_tools import core, embed, load, made, models

__all__ = ["embed", "load", "made", "models"]  # fixtures


@pytest.fixture(scope="module")
def sd1(models):
    with torch.inference_mode():
        return small_models.host_clip(small_models.reference_clip(seed=5))


@pytest.fixture
def no_encoding(monkeypatch):
    from image_to_prompt.nodes.families import embed as embedding
    from image_to_prompt.nodes.families import entries
    from image_to_prompt.nodes.families import load as loading

    def encode(*_):
        raise AssertionError("something was encoded")

    for module in (embedding, loading):
        monkeypatch.setattr(module, "image_embeddings", encode)
    monkeypatch.setattr(loading, "caption_states", encode)
    monkeypatch.setattr(entries, "encode_family_text", encode)


# --- pairings ---------------------------------------------------------------------------------


def test_another_familys_clip_is_refused_by_name(models, made, load, embed, sd1, no_encoding):
    others = {"SD 1.x": sd1, "SD 2.x": models.sd2, "SDXL refiner": models.refiner}
    for name, clip in others.items():
        with pytest.raises(ImageToPromptError, match=rf"SDXL, which.*Got {name}\..*socket clip"):
            embed(made, clip, models.vision)


def test_an_sd1_projection_with_the_clip_of_sdxl_says_how_to_make_one(load, models, embed):
    closed = load()
    assert closed.readings is None
    with pytest.raises(ImageToPromptError, match=r"LoadProjection as well \(socket clip\)"):
        embed(closed, models.sdxl, models.vision)


def test_another_vision_encoder_is_refused(models, made, load, embed, no_encoding):
    with pytest.raises(ImageToPromptError, match=r"joint width 768.*joint width 1280.*clip_vision"):
        embed(made, models.sdxl, models.vision_g)
    with pytest.raises(ImageToPromptError, match=r"clip_vision_g.*clip_vision"):
        load(clip=models.sdxl, clip_vision=models.vision_h)


def test_an_encoder_that_no_file_belongs_to_is_refused(models, load, no_encoding):
    with pytest.raises(ImageToPromptError, match=r"CLIP-ViT-H-14.*socket clip_vision"):
        load(clip=models.sd2)
    with pytest.raises(ImageToPromptError, match=r"clip_vision_g.*socket clip_vision"):
        load(clip=models.refiner)


def test_sd3_is_refused_by_name(load, embed, models, no_encoding):
    sd3 = family_models.sd3()
    with pytest.raises(ImageToPromptError, match="SD3 text encoder"):
        load(clip=sd3)
    with pytest.raises(ImageToPromptError, match=r"SD 1\.x.*Got SD3 text encoder"):
        embed(load(), sd3, models.vision)


def test_another_clip_layer_is_refused(models, made, load, embed, no_encoding):
    last = models.sdxl.clone()
    last.clip_layer(-1)
    with pytest.raises(ImageToPromptError, match=r"clip layer -2.*Got -1.*CLIP Set Last Layer"):
        embed(made, last, models.vision)
    beyond = models.sdxl.clone()
    beyond.clip_layer(-24)
    with pytest.raises(ImageToPromptError, match=r"from -3 to -1.*-24"):
        load(clip=beyond)


def test_the_layer_of_the_user_is_fitted_and_kept(models, load, embed):
    last = models.sdxl.clone()
    last.clip_layer(-1)
    projection = load(clip=last)
    assert projection.readings.layer == -1
    states, _ = embed(projection, last, models.vision, text="in the snow")
    assert torch.equal(states[:, :4], core(last, "in the snow")[0][:, :4])
    with pytest.raises(ImageToPromptError, match="clip layer -1"):
        embed(projection, models.sdxl, models.vision)


@pytest.mark.parametrize("fill", [float("nan"), 0.0])
def test_an_untrained_text_projection_is_refused(models, load, no_encoding, fill):
    weight = models.sd2.cond_stage_model.clip_h.transformer.text_projection.weight
    before = weight.clone()
    try:
        with torch.inference_mode():
            weight.fill_(fill)
        with pytest.raises(ImageToPromptError, match=r"of text encoder h.*socket clip"):
            load(clip=models.sd2, clip_vision=models.vision_h)
    finally:
        with torch.inference_mode():
            weight.copy_(before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"captions": ""}, "100 captions or more"),
        ({"corpus_size": -1}, "corpus_size"),
        ({"corpus_size": 20_001}, "corpus_size"),
        ({"image": torch.rand(2, 8, 8, 3)}, "socket clip_vision"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(models, load, no_encoding, changes, said):
    with pytest.raises(ImageToPromptError, match=said):
        load(clip=models.sdxl, **changes)


# --- options, interrupts ----------------------------------------------------------------------


def options_of(clip):
    names = ("layer", "layer_idx", "return_projected_pooled")
    model = clip.cond_stage_model
    encoders = [getattr(model, name) for name in ("clip_l", "clip_g") if hasattr(model, name)]
    return [getattr(encoder, name) for encoder in encoders for name in names], clip.layer_idx


def test_options_of_the_encoders_stay_after_success_error_and_interrupt(
    models, load, embed, made, monkeypatch
):
    import comfy.model_management

    plain = core(models.sdxl, "a cat")  # first: each of core's encodings sets the options anew
    before = options_of(models.sdxl)
    load(clip=models.sdxl)
    assert options_of(models.sdxl) == before

    encoder = models.sdxl.cond_stage_model.clip_g.transformer.text_model.encoder

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(encoder, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            load(clip=models.sdxl)
    assert options_of(models.sdxl) == before
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load(clip=models.sdxl)
    assert options_of(models.sdxl) == before
    for one, other in zip(core(models.sdxl, "a cat"), plain, strict=True):
        assert torch.equal(one, other)


def test_an_interrupt_is_met_within_32_captions(models, load, monkeypatch):
    import comfy.model_management

    from image_to_prompt.nodes.host.families import captions as module

    seen = []
    encode = module._group

    def counted(clip, family, layer, tokens, *others):
        seen.append(len(tokens))
        comfy.model_management.interrupt_current_processing()
        return encode(clip, family, layer, tokens, *others)

    monkeypatch.setattr(module, "_group", counted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load(clip=models.sdxl)
    assert len(CAPTIONS) > 32 and seen == [32]


def test_new_inputs_are_last_and_optional(host):
    load_inputs = host.classes["LoadProjection"].define_schema().inputs
    assert load_inputs[-1].id == "corpus_size" and load_inputs[-1].optional
    embed_inputs = host.classes["ImageToPromptEmbed"].define_schema().inputs
    names = [found.id for found in embed_inputs]
    after = embed_inputs[names.index("image_weights") + 1 :]
    assert after[0].id == "pads" and all(found.optional for found in after)
