"""Load Projection with a gap: what it encodes, and what it refuses.

The CLIP is small and random: wiring only. What the gap does to pictures is measured on the
miniature and on real embeddings, see tests/miniature and tests/geometry.
"""

from __future__ import annotations

import logging

import pytest
import torch

from image_to_prompt.projection import (
    ImageToPromptError,
    visual_direction,
)
from image_to_prompt.tests.host.gap_tools import (
    CAPTIONS,
    FILE,
    closed,
    embed,
    load,
    models,
    no_encoding,
    opened,
)

__all__ = ["closed", "embed", "load", "models", "no_encoding", "opened"]  # fixtures


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
    from image_to_prompt.nodes.gap import form as gap

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
