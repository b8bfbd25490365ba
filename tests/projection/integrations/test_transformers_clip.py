"""The method on a transformers CLIPModel against the published arithmetic, done by hand here."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    ImageToPromptError,
    from_clip_model,
    null_prompt,
    prompt_embeds,
)
from image_to_prompt.projection.integrations.transformers_clip import image_embeds, text_states
from image_to_prompt.tests.fixtures import builders

WIDTH, VISION, SOS, EOS = 32, 48, 98, 99

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


class Tokenizer:
    """Words by length, between a start and an end token, as CLIP's tokenizer frames them."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [SOS, *(len(word) for word in text.split()), EOS]}


@pytest.fixture(scope="module")
def clip():
    """A random CLIPModel with a text projection that has the real spectrum."""
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config={"hidden_size": WIDTH, "vocab_size": 100, "projection_dim": WIDTH}
        | {"bos_token_id": SOS, "eos_token_id": EOS, "pad_token_id": EOS}
        | layers,
        vision_config={"hidden_size": VISION, "image_size": 16, "patch_size": 8} | layers,
        projection_dim=WIDTH,
    )
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(builders.normal(*parameter.shape, seed=seed) * 0.2)
        model.text_projection.weight.copy_(builders.text_projection(WIDTH))
    return model


@pytest.fixture(scope="module")
def pixels():
    return builders.normal(3, 3, 16, 16, seed=5)


@pytest.fixture(scope="module")
def projection(clip):
    return from_clip_model(clip)


def by_hand(clip, pixels, text, alpha, cutoff):
    """The authors' script: pinv of the weight, 27.5 unit(u), 76 slots, text from the EOS on."""
    ids = Tokenizer()(text)["input_ids"]
    k = len(ids) - 1
    tokens = torch.tensor([ids + [EOS] * (77 - len(ids))])
    with torch.no_grad():
        out = clip(input_ids=tokens, pixel_values=pixels)
    words = out.text_model_output.last_hidden_state[0].double()
    inverse = torch.linalg.pinv(clip.text_projection.weight.double(), atol=cutoff, rtol=0.0)
    rows = []
    for v in out.image_embeds.double():
        u = inverse @ v
        e = 27.5 * u / u.norm()
        row = words.clone()
        row[k:] = e + (alpha * words[k:] if text else 0)
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("text", ["", "in", "a red fox in the snow", "word " * 75])
def test_prompt_embeds_equal_the_published_arithmetic(clip, projection, pixels, text, alpha):
    got = prompt_embeds(clip, Tokenizer(), projection, pixels, text, alpha)
    assert got.shape == (3, 77, WIDTH)
    wanted = by_hand(clip, pixels, text, alpha, projection.cutoff)
    assert (got.double() - wanted).abs().max() < 27.5 * 1e-5


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_strength_interpolates_from_the_encoded_empty_prompt(clip, projection, pixels, strength):
    null = null_prompt(clip, Tokenizer())
    full = prompt_embeds(clip, Tokenizer(), projection, pixels, "a fox")
    got = prompt_embeds(clip, Tokenizer(), projection, pixels, "a fox", strength=strength)
    assert torch.allclose(got, null + strength * (full - null), atol=1e-4)
    if strength in (0.0, 1.0):
        assert torch.equal(got, full if strength else null.expand(3, -1, -1))


def test_the_paper_text_weight_is_the_default(clip, projection, pixels):
    default = prompt_embeds(clip, Tokenizer(), projection, pixels, "a fox")
    assert torch.equal(default, prompt_embeds(clip, Tokenizer(), projection, pixels, "a fox", 0.6))


def test_the_empty_prompt_is_the_start_and_ends_in_end_tokens(clip):
    tokens = torch.tensor([[SOS] + [EOS] * 76])
    with torch.no_grad():
        wanted = clip.text_model(input_ids=tokens).last_hidden_state
    assert torch.equal(null_prompt(clip, Tokenizer()), wanted)


def test_the_start_state_is_that_of_the_text_encoder(clip, projection, pixels):
    got = prompt_embeds(clip, Tokenizer(), projection, pixels)
    null = null_prompt(clip, Tokenizer())
    assert all(torch.equal(row[0], null[0, 0]) for row in got)


def test_image_embeddings_are_those_of_the_model_before_scaling(clip, pixels):
    tokens = torch.tensor([[SOS, EOS]])
    with torch.no_grad():
        wanted = clip(input_ids=tokens, pixel_values=pixels).image_embeds
    got = image_embeds(clip, pixels)
    assert torch.allclose(got / got.norm(dim=-1, keepdim=True), wanted, atol=1e-6)


def test_the_projection_knows_the_whole_model(clip, projection):
    encoder = projection.encoder
    assert (encoder.text_width, encoder.joint_width, encoder.vision_width) == (WIDTH, WIDTH, VISION)
    ridge = from_clip_model(clip, method="ridge", cutoff=0.2)
    assert (ridge.method, ridge.cutoff) == ("ridge", 0.2)


def test_no_graph_is_kept_and_no_weight_changes(clip, projection, pixels):
    before = {key: tensor.clone() for key, tensor in clip.state_dict().items()}
    got = prompt_embeds(clip, Tokenizer(), projection, pixels, "a fox", strength=0.5)
    assert not got.requires_grad
    assert all(torch.equal(before[key], tensor) for key, tensor in clip.state_dict().items())


def test_a_text_that_fits_exactly_is_taken_and_a_longer_one_refused(clip):
    states, eos = text_states(clip, Tokenizer(), "word " * 75)
    assert (states.shape, eos) == ((1, 77, WIDTH), 76)
    with pytest.raises(ImageToPromptError, match=r"at most 77 tokens\. Got 78"):
        text_states(clip, Tokenizer(), "word " * 76)
