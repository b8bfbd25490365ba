"""Online Refine, Fit Projection and Apply Projection on SD 2.x and SDXL, in the real host.

Random weights: wiring and laws only, nothing about pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from image_to_prompt.projection import (
    SD2,
    SDXL,
    TEXT_ONLY,
    Family,
    ImageToPromptError,
    Projection,
    from_clip_model,
    lora_state,
)
from image_to_prompt.tests.host import family_models, small_models, small_unet
from image_to_prompt.tests.host.random_readings import readings_of
from image_to_prompt.tests.host.training_tools import (
    QUICK,
    QUICK_BLOCKS,
    QUICK_FULL,
    Tools,
    generator,
    leftovers,
    weights,
)

BLOCKS, CROSS, EMBEDDING, FULL = "transformer blocks", "cross-attention", "embedding", "full"
QUICK_CROSS = replace(QUICK, residual=None)


@pytest.fixture(scope="module")
def reference():
    return small_models.reference_clip(3)


def model_of(family: Family):
    if family is SDXL:
        state = small_unet.unet_state(small_unet.NARROW_SDXL)
        return small_unet.host_sdxl(small_unet.NARROW_SDXL, state)
    return small_unet.host_model(small_unet.unet_state(small_unet.SMALL_SD2))


def tools_of(host: Any, reference: Any, family: Family) -> Tools:
    plain: Projection = from_clip_model(reference)
    with torch.inference_mode():
        return Tools(
            host=host,
            model=model_of(family),
            vae=small_unet.host_vae(),
            clip=family_models.sdxl() if family is SDXL else family_models.sd2(),
            clip_vision=small_models.host_clip_vision(reference, host.folders),
            projection=plain.with_readings(readings_of(family, 1280 if family is SDXL else 1024)),
            picture=torch.rand(1, 64, 64, 3, generator=generator(9)),
        )


@pytest.fixture(scope="module")
def sdxl(host, reference):
    return tools_of(host, reference, SDXL)


@pytest.fixture(scope="module")
def sd2(host, reference):
    return tools_of(host, reference, SD2)


@pytest.fixture(autouse=True)
def quick(host, monkeypatch):
    presets = {BLOCKS: QUICK_BLOCKS, CROSS: QUICK_CROSS, EMBEDDING: replace(QUICK, lora=None)}
    presets[FULL] = QUICK_FULL
    for module, name in ((host.nodes.refine, "REFINE"), (host.nodes.fit, "FIT")):
        monkeypatch.setattr(module, name, presets)
    monkeypatch.setattr(host.nodes.fit, "PRESETS", (TEXT_ONLY, *presets))


@dataclass(frozen=True)
class Denoised:
    """What a model gives for one noisy input, as the host's sampler conditions it."""

    states: torch.Tensor
    extras: dict

    def by(self, model: Any) -> torch.Tensor:
        import comfy.model_management
        import comfy.samplers

        with torch.inference_mode():
            comfy.model_management.load_models_gpu([model], force_full_load=True)
            noisy = torch.randn(1, 4, 8, 8, generator=generator(1))
            given = {**self.extras, "cross_attn": self.states, "model_conds": {}}
            conds = comfy.samplers.encode_model_conds(
                model.model.extra_conds, [given], noisy, noisy.device, "positive"
            )[0]["model_conds"]
            named = {name: cond.cond for name, cond in conds.items()}
            return model.model.apply_model(noisy, torch.tensor([2.0]), **named)


def prompt(tools: Tools) -> Denoised:
    """The empty text in the family's own encoders."""
    import nodes

    with torch.inference_mode():
        [[states, extras]] = nodes.CLIPTextEncode().encode(tools.clip, "")[0]
    return Denoised(states, {k: v for k, v in extras.items() if k == "pooled_output"})


@pytest.fixture(scope="module")
def refined(host, sdxl):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.nodes.refine, "REFINE", {BLOCKS: QUICK_BLOCKS})
        return sdxl.refine(preset=BLOCKS, keep_texts="a red cat")


def test_refining_changes_every_transformer_block_of_sdxl(sdxl, refined):
    from image_to_prompt.nodes.host.model.checks import layers_of

    model, projection, curve = refined
    assert projection.cross_attention.deltas.keys() == layers_of(sdxl.model).keys()
    assert len(model.patches) == len(projection.cross_attention.deltas)
    found = prompt(sdxl)
    assert not torch.equal(found.by(model), found.by(sdxl.model))
    assert curve.shape[-1] == 3
    assert projection.readings.family.name == "SDXL"


def test_refining_leaves_the_connected_models_as_they_are(sdxl, refined):
    before, found = weights(sdxl.model.model), prompt(sdxl).by(sdxl.model)
    sdxl.refine(preset=CROSS, steps=1)
    after = weights(sdxl.model.model)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(prompt(sdxl).by(sdxl.model), found)
    assert not leftovers(sdxl.model.model, sdxl.clip.cond_stage_model)


def test_the_same_seed_gives_the_same_changes(sdxl, refined):
    again = sdxl.refine(preset=BLOCKS, keep_texts="a red cat")[1]
    for name, delta in refined[1].cross_attention.deltas.items():
        assert torch.equal(delta.weight(), again.cross_attention.deltas[name].weight())


def test_no_steps_change_nothing(sdxl):
    model, projection, _ = sdxl.refine(steps=0, preset=CROSS)
    assert projection.cross_attention is None and not model.patches


def test_applying_the_result_is_the_models_own_output(sdxl, refined):
    model, projection, _ = refined
    node = sdxl.host.classes["ApplyProjection"]
    with torch.inference_mode():
        applied = node.execute(sdxl.model, projection, 1.0).args[0]
        without = node.execute(sdxl.model, projection, 0.0).args[0]
    found = prompt(sdxl)
    assert torch.equal(found.by(applied), found.by(model))
    assert torch.equal(found.by(without), found.by(sdxl.model))


def test_cores_lora_loader_reads_what_was_trained(sdxl, refined, host):
    import comfy.sd

    model, projection, _ = refined
    state = lora_state(projection.cross_attention)
    with torch.inference_mode():
        loaded = comfy.sd.load_lora_for_models(sdxl.model, None, state, 1.0, 0.0)[0]
    assert set(loaded.patches) == set(model.patches)
    found = prompt(sdxl)
    assert torch.equal(found.by(loaded), found.by(model))


def test_sd2_is_refined_without_pooled_text_and_by_v_prediction(sd2):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model = ModelSamplingDiscrete().patch(sd2.model, "v_prediction", False)[0]
    for preset in (BLOCKS, CROSS):
        changed, projection, _ = sd2.refine(model=model, preset=preset)
        assert projection.cross_attention.width in (1024,) and changed.patches


def test_a_fit_goes_on_where_it_was_interrupted(sdxl):
    import comfy.model_management

    from image_to_prompt.tests.host.training_tools import ending

    given = {"preset": CROSS, "epochs": 1, "held_out": 0.0}
    whole = sdxl.fit(**given)[1]
    with ending(sdxl, 2, "interrupt"):
        sdxl.fit(**given)
    comfy.model_management.interrupt_current_processing(False)
    resumed = sdxl.fit(**given)[1]
    for name, delta in whole.cross_attention.deltas.items():
        assert torch.equal(delta.weight(), resumed.cross_attention.deltas[name].weight())


def test_text_least_squares_gives_the_pictures_mean_as_centre(sdxl):
    model, projection, _ = sdxl.fit(preset=TEXT_ONLY)
    assert not model.patches and projection.readings.pictures == 3
    assert not torch.equal(projection.readings.centre, sdxl.projection.readings.centre)


def refused(tools: Tools, says: str, **changed: Any) -> None:
    with pytest.raises(ImageToPromptError, match=says):
        tools.refine(**{"preset": CROSS, **changed})


def test_a_residual_corrects_the_image_embedding_and_leaves_the_model(sdxl):
    """The prompt is that of the corrected embedding, pooled output included; `full` trains too."""
    model, projection, _ = sdxl.refine(preset=EMBEDDING)
    assert not model.patches and projection.cross_attention is None
    assert projection.residual.width == projection.encoder.joint_width
    with torch.inference_mode():
        v = sdxl.clip_vision.encode_image(sdxl.picture).image_embeds.float()
    found, before = (projection.readings.apply(each) for each in (projection.corrected(v), v))
    states = sdxl.embed(projection)
    assert torch.allclose(states[0, 1, :768], found["l.eos"][0], atol=1e-4)
    assert torch.allclose(states[0, 76, 768:], found["g.pad"][0], atol=1e-4)
    assert not torch.allclose(found["pooled"], before["pooled"], atol=1e-4)
    whole = sdxl.fit(preset=FULL, epochs=1, held_out=0.0)[1]
    assert whole.vision is not None and whole.residual is not None
    assert whole.cross_attention is not None


def test_wrong_pairings_are_refused_by_socket(sdxl, sd2):
    refused(sdxl, r"SDXL.*socket model", model=sd2.model)
    refused(sdxl, r"SDXL.*socket clip", clip=sd2.clip)
    refused(sd2, r"SD 2\.x.*socket model", model=sdxl.model)
    plain = replace(sdxl.projection, readings=None)
    refused(sdxl, r"SD 1\.x.*socket clip", projection=plain)
    node = sdxl.host.classes["ApplyProjection"]
    with pytest.raises(ImageToPromptError, match=r"SD 1\.x.*socket model"):
        node.execute(sdxl.model, plain, 1.0)


def test_the_refiner_is_refused_by_name(sdxl):
    readings = SimpleNamespace(family=SimpleNamespace(name="SDXL refiner"))
    from image_to_prompt.nodes.host.model.checks import family_for

    with pytest.raises(ImageToPromptError, match="SDXL refiner"):
        family_for(SimpleNamespace(readings=readings))


def test_a_preview_is_sampled_under_the_pictures_prompt(sdxl):
    from image_to_prompt.nodes.training import session

    models = session.Models(**{k: v for k, v in sdxl.sockets().items() if k != "image"})
    given = []
    predict = models.denoiser.predict
    models.denoiser.predict = lambda *args, **named: given.append(named) or predict(*args, **named)
    with torch.inference_mode():
        images = session.training_images(models, [sdxl.picture], QUICK_CROSS, "center", 64)
        trainer = session.trainer_of(models, QUICK_CROSS, 0, 1, images)
        latents = session.preview(models, trainer)
    assert latents.shape == (1, 4, 8, 8) and latents.isfinite().all()
    wanted = trainer.loss.form.of_images(trainer.images.embeds).pooled
    assert len(given) == 6 and all(torch.equal(each["pooled"], wanted) for each in given)
