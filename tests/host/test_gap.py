"""Load Projection with a gap: what it encodes, what it gives, and what it refuses.

The CLIP is small and random: wiring only. What the gap does to pictures is measured on the
miniature and on real embeddings, see tests/miniature and tests/geometry.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from image_to_prompt.projection import (
    ImageToPromptError,
    Projection,
    condition,
    load_projection,
    spherical_mean,
    text_projection_of,
    visual_direction,
)
from image_to_prompt.tests.host import small_models

FILE = "gap-clip.safetensors"
WORDS = ("cat", "dog", "tree", "river", "red", "castle", "old", "small", "night", "snow")
CAPTIONS = [f"a {WORDS[i % 10]} {WORDS[i // 4]} {'and a lamp ' * (i % 4)}" for i in range(36)]


@pytest.fixture(scope="module")
def models(host, tmp_path_factory):
    """The CLIP's halves in the host's classes, and its projections as a file."""
    reference = small_models.reference_clip(seed=5)
    names = ("text_projection.weight", "visual_projection.weight")
    weights = {name: reference.state_dict()[name].clone().contiguous() for name in names}
    save_file(weights, host.folders / "models" / "text_encoders" / FILE)
    with torch.inference_mode():
        vision = small_models.host_clip_vision(reference, tmp_path_factory.mktemp("vision"))
        clip = small_models.host_clip(reference)
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(9, 30, 40, 3, generator=generator)
    return SimpleNamespace(clip=clip, vision=vision, pictures=pictures, weights=weights)


@pytest.fixture(scope="module")
def load(host, models):
    def loaded(**inputs) -> Projection:
        given = {"file": FILE, "method": "pseudo-inverse", "cutoff": 0.0} | inputs
        with torch.inference_mode():
            return host.classes["LoadProjection"].execute(**given).args[0]

    return loaded


@pytest.fixture(scope="module")
def embed(host, models):
    def embedded(projection, image=None, **inputs):
        given = {
            "projection": projection,
            "clip": models.clip,
            "clip_vision": models.vision,
            "image": models.pictures[:1] if image is None else image,
            "text": "",
            "text_weight": 0.6,
            "strength": 1.0,
            "images": "one prompt per image",
            "crop": "center",
        }
        with torch.inference_mode():
            [value] = host.classes["ImageToPromptEmbed"].execute(**given | inputs).args
        while not isinstance(value, torch.Tensor):
            value = value[0]
        return value

    return embedded


@pytest.fixture(scope="module")
def closed(load):
    return load()


@pytest.fixture(scope="module")
def opened(load, models):
    """At gap 1, from these captions alone."""
    return load(clip=models.clip, captions="\n".join(CAPTIONS), gap=1.0)


@pytest.fixture
def no_encoding(monkeypatch):
    from image_to_prompt.nodes import gap

    def encode(*_):
        raise AssertionError("something was encoded")

    monkeypatch.setattr(gap, "eos_states", encode)
    monkeypatch.setattr(gap, "image_embeddings", encode)


# --- gap 0 ------------------------------------------------------------------------------------


def test_gap_0_gives_what_it_gave_whatever_is_connected(load, closed, models, no_encoding, embed):
    connected = load(
        clip=models.clip,
        image=models.pictures,
        captions="\n".join(CAPTIONS),
        gap=0.0,
        clip_vision=models.vision,
    )
    assert connected.centred is None and closed.centred is None
    assert torch.equal(connected.matrix, closed.matrix)
    for text in ("", "in the snow"):
        assert torch.equal(embed(connected, text=text), embed(closed, text=text))


def test_inputs_of_earlier_graphs_come_first_and_the_new_ones_are_optional(host):
    inputs = host.classes["LoadProjection"].define_schema().inputs
    ids = [each.id for each in inputs]
    assert ids == ["file", "method", "cutoff", "clip", "image", "captions", "gap", "clip_vision"]
    assert all(each.optional for each in inputs[3:])
    assert inputs[6].default == 0.0


# --- encoding ---------------------------------------------------------------------------------


def test_short_encoding_gives_the_states_of_the_whole_prompt(models):
    from image_to_prompt.nodes.host.text import caption_states, eos_states

    texts = [*CAPTIONS, "", "word " * 75, "a " * 74]
    with torch.inference_mode():
        wanted = caption_states(models.clip, texts)
        found = eos_states(models.clip, texts)
        skipping = models.clip.clone()
        skipping.clip_layer(-2)
        assert torch.equal(eos_states(skipping, texts), found)
    assert found.shape == (len(texts), 768)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_the_offset_is_the_mean_state_of_the_captions(models, opened):
    from image_to_prompt.nodes.host.text import caption_states

    with torch.inference_mode():
        states = caption_states(models.clip, [line.strip() for line in CAPTIONS]).double()
    form = opened.centred
    assert torch.allclose(form.offset.double(), states.mean(0), atol=1e-4)
    assert form.spread == pytest.approx(float((states - states.mean(0)).norm(dim=-1).mean()), 1e-4)
    assert torch.equal(form.matrix, models.weights["text_projection.weight"].T)
    wanted = visual_direction(models.weights["visual_projection.weight"]).float()
    assert torch.allclose(form.direction, wanted)
    assert (form.removed, form.gap) == (1.0, 1.0)


def test_without_captions_300_built_in_ones_are_encoded_with_words_of_the_vocabulary(
    load, models, monkeypatch
):
    from image_to_prompt.nodes import gap

    seen = []

    def encode(clip, texts):
        seen.extend(texts)
        return torch.randn(len(texts), 768, generator=torch.Generator().manual_seed(0)) + 0.5

    monkeypatch.setattr(gap, "eos_states", encode)
    load(clip=models.clip, gap=0.5, captions=" \n ")
    assert len(set(seen)) == 300
    plain = {word for text in gap.broad_captions(300) for word in text.split()}
    assert len({word for text in seen for word in text.split()} - plain) > 100


def test_encoding_stops_within_32_captions_of_an_interrupt(load, models, monkeypatch):
    import comfy.model_management

    from image_to_prompt.nodes.host import text

    groups = []
    short = text._short_states

    def interrupted(*args):
        groups.append(len(args[1]))
        comfy.model_management.interrupt_current_processing()
        return short(*args)

    monkeypatch.setattr(text, "_short_states", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load(clip=models.clip, gap=1.0)
    assert groups == [32]
    comfy.model_management.interrupt_current_processing(False)


# --- pictures ---------------------------------------------------------------------------------


def test_8_pictures_replace_the_direction_of_the_visual_projection(load, models):
    found = load(
        clip=models.clip,
        captions="\n".join(CAPTIONS),
        gap=1.0,
        image=models.pictures,
        clip_vision=models.vision,
    ).centred
    with torch.inference_mode():
        rows = [
            models.vision.encode_image(p[None], crop=True).image_embeds for p in models.pictures
        ]
    unit = torch.nn.functional.normalize(torch.cat(rows).double(), dim=-1).mean(0)
    assert torch.allclose(found.direction.double(), unit / unit.norm(), atol=1e-5)
    assert found.removed == 0.7


def test_pictures_of_a_folder_count_together_and_other_lists_are_mapped(host, models, load):
    given = {"clip": models.clip, "captions": "\n".join(CAPTIONS), "clip_vision": models.vision}
    whole = load(**given, gap=1.0, image=models.pictures).centred
    lists = {name: [value] for name, value in given.items()}
    lists |= {"file": [FILE], "method": ["pseudo-inverse"], "cutoff": [0.0], "gap": [1.0, 0.0]}
    pictures = [*models.pictures[:3].split(1), models.pictures[3:]]
    with torch.inference_mode():
        [found] = host.classes["LoadProjection"].execute(**lists, image=pictures).args
    assert [each.centred is None for each in found] == [False, True]
    assert torch.equal(found[0].centred.direction, whole.direction)
    assert host.classes["LoadProjection"].validate_inputs(file=[FILE]) is True
    missing = host.classes["LoadProjection"].validate_inputs(file=[FILE, "none.safetensors"])
    assert "none.safetensors" in missing


def test_the_fingerprint_is_that_of_the_files(host, models):
    node = host.classes["LoadProjection"]
    assert node.fingerprint_inputs(file=[FILE], gap=[0.5]) == node.fingerprint_inputs(file=FILE)
    assert len(node.fingerprint_inputs(file=FILE)) == 64


def test_7_pictures_are_too_few_and_that_is_said(load, models, opened, caplog):
    with caplog.at_level(logging.WARNING):
        found = load(
            clip=models.clip,
            captions="\n".join(CAPTIONS),
            gap=1.0,
            image=models.pictures[:7],
            clip_vision=models.vision,
        ).centred
    assert torch.equal(found.direction, opened.centred.direction)
    assert any("7 pictures" in record.message for record in caplog.records)


# --- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "in the snow"])
@pytest.mark.parametrize("blend", ["add", "add, keep length"])
def test_prompts_are_those_of_the_centred_form_with_centred_text(
    models, opened, embed, text, blend
):
    import nodes

    found = embed(opened, text=text, blend=blend)
    with torch.inference_mode():
        v = models.vision.encode_image(models.pictures[:1], crop=True).image_embeds
        states = nodes.CLIPTextEncode().encode(models.clip, text)[0][0][0]
        eos = [1] if not text else [4]
        wanted = condition(states, eos, opened.apply(v), 0.6, blend, opened.centred)
    assert torch.equal(found, wanted)
    common = opened.centred.common
    kept = (opened.apply(v)[0] - common).norm()
    assert torch.allclose((found[0, eos[0] :] - common).norm(dim=-1), kept, rtol=1e-4)


def test_strength_0_is_the_empty_prompt_bit_for_bit(models, opened, embed):
    import nodes

    with torch.inference_mode():
        empty = nodes.CLIPTextEncode().encode(models.clip, "")[0][0][0]
    assert torch.equal(embed(opened, strength=0.0, text="in the snow"), empty)


def test_one_prompt_from_all_keeps_the_common_part(models, opened, embed):
    found = embed(opened, models.pictures[:3], images="one prompt from all")[0, 1]
    with torch.inference_mode():
        rows = [
            models.vision.encode_image(p[None], crop=True).image_embeds for p in models.pictures
        ]
        e = torch.cat([opened.apply(v) for v in rows[:3]])
    assert torch.equal(found, spherical_mean(e, common=opened.centred.common)[0])
    copies = models.pictures[:1].expand(4, -1, -1, -1)
    assert torch.equal(embed(opened, copies, images="one prompt from all"), embed(opened))


# --- saved ------------------------------------------------------------------------------------


def test_a_saved_gap_comes_back_without_encoding(host, load, models, opened, embed, no_encoding):
    with torch.inference_mode():
        host.classes["SaveProjection"].execute(projection=opened, filename_prefix="opened")
    name = "opened_00001_.safetensors"
    loaded = load(file=name)
    assert loaded.centred.gap == 1.0
    assert torch.equal(embed(loaded, text="in the snow"), embed(opened, text="in the snow"))
    half = load(file=name, gap=0.5, clip=models.clip)
    assert half.centred.gap == 0.5
    assert torch.equal(half.centred.offset, opened.centred.offset)
    folder = host.folders / "models" / "projections"
    assert load_projection(folder / name).centred.gap == 1.0


def test_a_projection_saved_without_a_gap_gets_one_from_the_models(host, load, models, closed):
    with torch.inference_mode():
        host.classes["SaveProjection"].execute(projection=closed, filename_prefix="closed")
    given = {"file": "closed_00001_.safetensors", "clip": models.clip, "gap": 1.0}
    captions = "\n".join(CAPTIONS)
    found = load(**given, captions=captions, clip_vision=models.vision).centred
    wanted = visual_direction(models.weights["visual_projection.weight"]).float()
    assert float((found.direction @ wanted).abs()) == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(found.matrix, text_projection_of(closed).T)
    with pytest.raises(ImageToPromptError, match="socket clip_vision"):
        load(**given, captions=captions)


# --- what is missing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"gap": 0.5}, r"socket clip\)"),
        ({"gap": 1.5}, "gap from 0 to 1"),
        ({"gap": -0.1}, "gap from 0 to 1"),
        ({"gap": float("nan")}, "gap"),
        ({"gap": "1"}, "gap"),
        ({"gap": 0.5, "clip": "models", "captions": "a cat\na dog"}, "at least 32 captions"),
        ({"gap": 0.5, "clip": "models", "captions": 7}, "captions"),
        ({"gap": 0.5, "clip": "models", "captions": "a cat\n" * 40}, "differ"),
        ({"gap": 0.5, "clip": "models", "image": "models"}, "socket clip_vision"),
        ({"gap": 0.5, "clip": "models", "image": torch.zeros(2, 3)}, "socket image"),
    ],
)
def test_what_is_missing_or_unfit_is_refused_by_name(load, models, inputs, says):
    stand_ins = {"clip": models.clip, "image": models.pictures}
    given = {
        name: stand_ins[name] if isinstance(value, str) and value == "models" else value
        for name, value in inputs.items()
    }
    with pytest.raises(ImageToPromptError, match=says):
        load(**given)


def test_the_hosts_executor_gives_its_pictures_together_and_takes_one_projection(
    host, models, load
):
    import asyncio

    import execution

    given = {"clip": models.clip, "captions": "\n".join(CAPTIONS), "clip_vision": models.vision}
    lists = {name: [value] for name, value in given.items()}
    lists |= {"file": [FILE], "method": ["pseudo-inverse"], "cutoff": [0.0], "gap": [1.0]}
    lists["image"] = list(models.pictures.split(1))
    node = host.classes["LoadProjection"]
    with torch.inference_mode():
        outputs = asyncio.run(execution.get_output_data("prompt", "1", node, lists))[0]
    [[found]] = outputs
    whole = load(**given, gap=1.0, image=models.pictures).centred
    assert torch.equal(found.centred.direction, whole.direction)
