"""Load Projection with a gap: the prompts that it gives, saved and loaded, and gap 0.

The CLIP is small and random: wiring only. What the gap does to pictures is measured on the
miniature and on real embeddings, see tests/miniature and tests/geometry.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    ImageToPromptError,
    condition,
    load_projection,
    spherical_mean,
    text_projection_of,
    visual_direction,
)
from image_to_prompt.tests.host.gap_tools import (
    CAPTIONS,
    closed,
    embed,
    load,
    models,
    no_encoding,
    opened,
)

__all__ = ["closed", "embed", "load", "models", "no_encoding", "opened"]  # fixtures


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
    earlier = ["file", "method", "cutoff", "clip", "image", "captions", "gap", "clip_vision"]
    assert ids[: len(earlier)] == earlier
    assert all(each.optional for each in inputs[3:])
    assert inputs[6].default == 0.0


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
