"""A picture as SDXL's prompt with diffusers' parts: small encoders with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from image_to_prompt.projection import Family, Part, picture_prompt
from image_to_prompt.projection.integrations.diffusers_sdxl import sdxl_readings, sdxl_text

START, EOS = 49406, 49407
FAMILY = Family(
    "small SDXL", (Part("l", 16, EOS, False), Part("g", 32, 0, False)), pooled="g", layer=-2
)
WORDS = ["red", "blue", "cat", "dog", "tree", "house", "old", "new"]
CAPTIONS = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[::2]]


class Tokenizer:
    """One id a word, padded to 77 as CLIP's tokenizer does."""

    eos_token_id = EOS

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, texts, max_length, **_):
        rows = [[START, *(100 + WORDS.index(w) for w in t.split()), EOS] for t in texts]
        full = [row + [self.pad] * (max_length - len(row)) for row in rows]
        return {"input_ids": torch.tensor(full)}


def encoder(cls, width: int, seed: int):
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=4, projection_dim=width, eos_token_id=EOS, bos_token_id=START,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return cls(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pipeline():
    return SimpleNamespace(
        tokenizer=Tokenizer(EOS),
        tokenizer_2=Tokenizer(0),
        text_encoder=encoder(CLIPTextModel, 16, 1),
        text_encoder_2=encoder(CLIPTextModelWithProjection, 32, 2),
    )


def test_a_picture_becomes_prompt_and_pooled_embeddings(pipeline):
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(3))
    readings = sdxl_readings(pipeline, weight, CAPTIONS, FAMILY)
    assert all(reading.r_squared > 0.5 for reading in readings.readings.values())
    text = sdxl_text(pipeline, "red cat")
    prompt, pooled = picture_prompt(readings, torch.ones(2, 16), text)
    assert prompt.shape == (2, 77, 48) and pooled.shape == (2, 32)
    ids = pipeline.tokenizer(["red cat"], 77)["input_ids"]
    states = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
    assert torch.equal(prompt[:, :3, :16], states[:, :3].expand(2, -1, -1))
    assert text.eos == {"l": [3], "g": [3]}


def test_the_embedding_of_a_caption_gives_its_own_states(pipeline):
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(3))
    readings = sdxl_readings(pipeline, weight, CAPTIONS, FAMILY)
    text = "old blue house"
    states = sdxl_text(pipeline, text)
    ids = pipeline.tokenizer([text], 77)["input_ids"]
    last = pipeline.text_encoder(ids).last_hidden_state[:, 4]
    found = readings.apply(last @ weight.T)
    for key in ("l", "g"):
        offset = readings.readings[f"{key}.eos"].offset
        cosine = torch.cosine_similarity(
            found[f"{key}.eos"] - offset, states.states[key][:, 4] - offset
        )
        assert cosine > 0.6, key  # random encoders agree less than trained ones
