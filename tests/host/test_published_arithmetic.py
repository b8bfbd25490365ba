"""ImageToPromptEmbed on the real host against the paper's arithmetic, computed apart.

The reference below shares no code with the project: transformers runs the CLIP, numpy inverts,
and the host's prompt syntax (weights in parentheses, chunks of 77) is written out again.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from image_to_prompt.tests.host import small_models

NORM = 27.5
TOLERANCE = 2e-3 * NORM
LONG = "red green blue white black dog cat house tree river " * 11  # 110 words: two chunks


@pytest.fixture(scope="module")
def models(host, tmp_path_factory):
    reference = small_models.reference_clip(seed=1)
    with torch.inference_mode():
        clip = small_models.host_clip(reference)
        vision = small_models.host_clip_vision(reference, tmp_path_factory.mktemp("vision"))
    return reference, clip, vision


@pytest.fixture(scope="module")
def projection(models):
    from image_to_prompt.projection import from_clip_model

    return from_clip_model(models[0])


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(3, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic")
    return smooth.clamp(0, 1).movedim(1, -1)


def run(host, projection, models, pictures, text="", **changes):
    inputs = {
        "text_weight": 0.6,
        "strength": 1.0,
        "images": "one prompt per image",
        "crop": "center",
        **changes,
    }
    node = host.classes["ImageToPromptEmbed"]
    with torch.inference_mode():
        out = node.execute(
            projection=projection,
            clip=models[1],
            clip_vision=models[2],
            image=pictures,
            text=text,
            **inputs,
        )
    return out.args[0]


def reference_embeddings(reference, pictures):
    """27.5 * unit(W_t^+ W_v c) for each picture, (B, 768) float64."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (255 * pictures).clamp(0, 255).round() / 255
    hidden = reference.vision_model(pixel_values=((pixels - mean) / std).movedim(-1, 1))
    v = reference.visual_projection(hidden.pooler_output).double().numpy()
    weight = reference.text_projection.weight.double().numpy()
    left, values, right = np.linalg.svd(weight)
    inverse = (right.T * np.where(values >= 0.3, 1 / values, 0)) @ left.T
    u = v @ inverse.T
    return NORM * u / np.linalg.norm(u, axis=-1, keepdims=True)


def reference_states(reference, chunk):
    """Last-layer states (77, 768) of [(token id, weight)], SOS and EOS included, unpadded."""
    ids = [token for token, _ in chunk]
    padded = torch.tensor([ids + [49407] * (77 - len(ids))])
    states = reference.text_model(input_ids=padded).last_hidden_state[0].double().numpy()
    weights = np.array([w for _, w in chunk] + [1.0] * (77 - len(chunk)))[:, None]
    if (weights == 1).all():
        return states
    empty = torch.tensor([[49406] + [49407] * 76])
    null = reference.text_model(input_ids=empty).last_hidden_state[0].double().numpy()
    return (states - null) * weights + null


def chunks_of(host_path, segments):
    """[(text, weight)] as chunks of [(id, weight)]; every segment here fits into its chunk."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(host_path / "comfy" / "sd1_tokenizer"))
    tokens = [
        (token, weight) for text, weight in segments for token in tokenizer(text)["input_ids"][1:-1]
    ]
    parts = [tokens[i : i + 75] for i in range(0, len(tokens), 75)] or [[]]
    return [[(49406, 1.0), *part, (49407, 1.0)] for part in parts]


def published(reference, embeddings, chunks, alpha):
    """[SOS, words, e + alpha T, ...] for each chunk; no words: [SOS, e, e, ...]."""
    weight = 0.0 if chunks == [[(49406, 1.0), (49407, 1.0)]] else alpha
    slots = []
    for chunk in chunks:
        states, eos = reference_states(reference, chunk), len(chunk) - 1
        words = np.broadcast_to(states[:eos], (len(embeddings), eos, states.shape[-1]))
        slots += [words, embeddings[:, None] + weight * states[eos:]]
    return np.concatenate(slots, axis=1)


CASES = {
    "no text": ("", [("", 1.0)]),
    "text": ("a dog in the snow", [("a dog in the snow", 1.0)]),
    "long text": (LONG, [(LONG, 1.0)]),
    "weights": (
        "a (red:1.4) dog and (snow)",
        [("a ", 1.0), ("red", 1.4), (" dog and ", 1.0), ("snow", 1.1)],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_node_gives_the_published_arithmetic(host, models, projection, pictures, name, batch):
    text, segments = CASES[name]
    ((conditioning, _),) = run(host, projection, models, pictures[:batch], text)
    chunks = chunks_of(host.path, segments)
    embeddings = reference_embeddings(models[0], pictures[:batch])
    expected = published(models[0], embeddings, chunks, 0.6)
    assert conditioning.shape == expected.shape == (batch, 77 * len(chunks), 768)
    assert np.abs(conditioning.double().numpy() - expected).max() <= TOLERANCE


def test_long_text_is_really_two_chunks(host):
    assert len(chunks_of(host.path, [(LONG, 1.0)])) == 2


@pytest.mark.parametrize("text", ["a dog", LONG, "a (red:1.4) dog"])
def test_without_any_image_the_text_part_is_core_clip_text_encode(host, models, text):
    import nodes as core
    from image_to_prompt.projection import condition

    with torch.inference_mode():
        ((expected, _),) = core.CLIPTextEncode().encode(models[1], text)[0]
        encoded = host.nodes.host.api.encode_text(models[1], text)
        ((states, _),) = encoded.entries
        part = condition(states, encoded.eos, torch.zeros(1, 768), text_weight=1.0)
    assert torch.equal(part, expected)


@pytest.mark.parametrize("text", ["", "a dog", LONG])
def test_strength_0_is_the_empty_prompt_bit_for_bit(host, models, projection, pictures, text):
    import nodes as core

    with torch.inference_mode():
        ((null, _),) = core.CLIPTextEncode().encode(models[1], "")[0]
    ((conditioning, _),) = run(host, projection, models, pictures, text, strength=0.0)
    assert torch.equal(conditioning, null.expand(3, -1, -1))


def test_words_and_sos_are_core_clip_text_encode_bit_for_bit(host, models, projection, pictures):
    import nodes as core

    with torch.inference_mode():
        ((text, _),) = core.CLIPTextEncode().encode(models[1], "a dog")[0]
    ((conditioning, _),) = run(host, projection, models, pictures[:1], "a dog")
    assert torch.equal(conditioning[:, :3], text[:, :3])
    assert not torch.isclose(conditioning[:, 3:], text[:, 3:]).all()


def test_a_picture_gives_the_same_numbers_alone_and_in_a_batch(host, models, projection, pictures):
    ((batch, _),) = run(host, projection, models, pictures)
    for index in range(3):
        ((alone, _),) = run(host, projection, models, pictures[index : index + 1])
        assert torch.equal(alone[0], batch[index])


def test_copies_of_one_image_give_that_image(host, models, projection, pictures):
    copies = pictures[:1].expand(4, -1, -1, -1)
    ((one, _),) = run(host, projection, models, pictures[:1])
    ((all_, _),) = run(host, projection, models, copies, images="one prompt from all")
    assert torch.equal(one, all_)


def test_the_order_of_references_does_not_matter(host, models, projection, pictures):
    changes = {"images": "one prompt from all"}
    ((a, _),) = run(host, projection, models, pictures, image_weights="1, 2, 3", **changes)
    ((b, _),) = run(host, projection, models, pictures.flip(0), image_weights="3, 2, 1", **changes)
    assert torch.equal(a, b)
    ((c, _),) = run(host, projection, models, pictures, image_weights="3, 2, 1", **changes)
    assert not torch.equal(a, c)


def test_grey_rgba_and_rgb_of_the_same_picture_agree(host, models, projection, pictures):
    grey = pictures[:1, ..., :1]
    rgb = grey.expand(-1, -1, -1, 3)
    rgba = torch.cat([rgb, torch.rand(1, 224, 224, 1)], dim=-1)
    ((expected, _),) = run(host, projection, models, rgb)
    for picture in (grey, rgba):
        assert torch.equal(run(host, projection, models, picture)[0][0], expected)


def test_crop_decides_whether_borders_are_seen(host, models, projection):
    wide = torch.zeros(1, 64, 192, 3)
    bordered = wide.clone()
    bordered[:, :, :40] = 1.0
    for crop, same in (("center", True), ("none", False)):
        ((a, _),) = run(host, projection, models, wide, crop=crop)
        ((b, _),) = run(host, projection, models, bordered, crop=crop)
        assert torch.allclose(a, b, atol=1e-4) == same


def test_clip_skip_acts_on_the_text_and_not_on_the_picture(host, models, projection, pictures):
    import nodes as core

    (skipped_clip,) = core.CLIPSetLastLayer().set_last_layer(models[1], -2)
    reference, _, vision = models
    ((plain, _),) = run(host, projection, models, pictures[:1])
    ((skipped, _),) = run(host, projection, (reference, skipped_clip, vision), pictures[:1])
    assert torch.equal(plain[:, 1:], skipped[:, 1:])
    assert not torch.equal(plain[:, 0], skipped[:, 0])


def test_nothing_that_comes_in_is_changed(host, models, projection, pictures):
    before = pictures.clone(), projection.matrix.clone()
    run(host, projection, models, pictures, "a dog", strength=0.5)
    assert torch.equal(pictures, before[0])
    assert torch.equal(projection.matrix, before[1])
