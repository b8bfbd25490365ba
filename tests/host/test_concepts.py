"""Mix, slots and saved prompts on the real host: against the library, and behind core's nodes."""

# ruff: noqa: F811  fixtures of another module
from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    CONCEPTS,
    Concept,
    ImageToPromptError,
    assemble,
    only,
    swap,
    text_projection_of,
    visual_direction,
    without,
)
from image_to_prompt.tests.host.saved_prompts import save_prompt
from image_to_prompt.tests.host.test_published_arithmetic import (  # noqa: F401  fixtures
    LONG,
    models,
    pictures,
    projection,
    run,
)

TREES = "red, green, blue, white, black"


def mix(host, projection, models, a, b=None, **changes):
    inputs = {
        "mode": "take from image_b",
        "concept": "own words",
        "words": TREES,
        "amount": 1.0,
        "text": "",
        "text_weight": 0.6,
        "strength": 1.0,
        "crop": "center",
        **changes,
    }
    node = host.classes["ImageToPromptMix"]
    with torch.inference_mode():
        out = node.execute(
            projection=projection,
            clip=models[1],
            clip_vision=models[2],
            image_a=a,
            image_b=b,
            **inputs,
        )
    return out.args[0]


def embeds(models, batch):
    with torch.inference_mode():
        return torch.cat([models[2].encode_image(p).image_embeds for p in batch.split(1)]).float()


def concept_of(models, projection, words):
    """By core's own way of encoding a text: the state at the first EOS."""
    ends = []
    for word in words:
        tokens = models[1].tokenize(word)
        place = [token for token, *_ in tokens["l"][0]].index(49407)
        ends.append(models[1].encode_from_tokens(tokens)[0, place].float())
    return Concept.of(torch.stack(ends) @ text_projection_of(projection).T)


def conditioning(found):
    ((states, extras),) = found
    return states, extras


@pytest.mark.parametrize("mode", ["take from image_b", "only this", "all but this"])
@pytest.mark.parametrize("concept", ["own words", "colours"])
def test_mix_is_the_librarys_arithmetic(host, models, projection, pictures, mode, concept):
    a, b = pictures[:2], pictures[2:]
    states, extras = conditioning(
        mix(host, projection, models, a, b, mode=mode, concept=concept, amount=0.7)
    )
    words = TREES.split(", ") if concept == "own words" else CONCEPTS[concept]
    with torch.inference_mode():
        found = concept_of(models, projection, words)
        direction = visual_direction(models[0].visual_projection.weight).float()
        x = {
            "take from image_b": lambda: swap(embeds(models, a), embeds(models, b), found, 0.7),
            "only this": lambda: only(embeds(models, a), found, 0.7, direction),
            "all but this": lambda: without(embeds(models, a), found, 0.7, direction),
        }[mode]()
        wanted = assemble(states[0, 0], projection.apply(x))
    assert states.shape == (2, 77, 768)
    assert torch.equal(extras["pooled_output"], states[:, 1])
    plain, _ = conditioning(run(host, projection, models, a))
    # The host's float16 weights: words encoded alone and together differ in the last bits.
    away, change = (float((states - other).abs().max()) for other in (wanted, plain))
    assert away < 0.1 * change, (away, change)


@pytest.mark.parametrize("text", ["", "a dog", LONG])
@pytest.mark.parametrize("mode", ["take from image_b", "only this", "all but this"])
def test_amount_0_is_embeds_own_prompt_bit_for_bit(host, models, projection, pictures, mode, text):
    changes = {"text": text, "strength": 0.8, "blend": "add, keep length"}
    found = mix(host, projection, models, pictures, pictures[:1], mode=mode, amount=0.0, **changes)
    ((states, extras),), ((plain, more),) = (
        found,
        run(host, projection, models, pictures, **changes),
    )
    assert torch.equal(states, plain)
    assert torch.equal(extras["pooled_output"], more["pooled_output"])


def test_one_picture_serves_a_batch_and_rows_are_single_runs(host, models, projection, pictures):
    together, _ = conditioning(mix(host, projection, models, pictures[:2], pictures[2:]))
    for row, picture in zip(together, pictures[:2].split(1), strict=True):
        alone, _ = conditioning(mix(host, projection, models, picture, pictures[2:]))
        assert torch.allclose(alone[0], row, atol=1e-4)


BAD = {
    "mode": ({"mode": "other"}, "mode among"),
    "concept": ({"concept": "mood"}, "concept among"),
    "no second picture": ({"b": None}, "socket image_b"),
    "three for two": ({"b": 3}, "1 or 2 pictures on socket image_b"),
    "amount": ({"amount": 1.5}, "amount from 0 to 1"),
    "NaN amount": ({"amount": float("nan")}, "finite amount"),
    "two words": ({"words": "oak, birch"}, "at least 3 different words"),
    "no words": ({"words": ""}, "at least 3 different words"),
    "words no text": ({"words": 3}, "words as a text"),
    "blend": ({"blend": "other"}, "blend among"),
    "crop": ({"crop": "other"}, "crop among"),
    "picture": ({"a": "photo.png"}, "socket image_a"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(host, models, projection, pictures, name):
    changes, says = BAD[name]
    changes = {"a": pictures[:2], "b": pictures[2:], **changes}
    b = changes.pop("b")
    b = pictures if isinstance(b, int) else b
    with pytest.raises(ImageToPromptError) as caught:
        mix(host, projection, models, changes.pop("a"), b, **changes)
    assert says in str(caught.value) or (says == "own words" and "words" in str(caught.value))


# --- slots ------------------------------------------------------------------------------------

SLOTS = "one prompt from all, slots shared"


@pytest.mark.parametrize("text", ["", "a dog", LONG])
def test_each_slot_is_one_pictures(host, models, projection, pictures, text):
    each, _ = conditioning(run(host, projection, models, pictures, text))
    found, extras = conditioning(
        run(host, projection, models, pictures, text, images=SLOTS, image_weights="2, 1, 1")
    )
    assert found.shape == (1, *each.shape[1:])
    holds = torch.stack([(found[0] == row).all(dim=-1) for row in each])
    assert holds.any(dim=0).all()
    own = holds & (holds.sum(dim=0) == 1)
    shares = own.sum(dim=1) / own.sum()
    assert ((shares - torch.tensor([0.5, 0.25, 0.25])).abs() < 0.05).all()
    assert torch.equal(extras["pooled_output"], found[:, int(holds.all(dim=0)[:77].sum())])


def test_one_picture_has_all_slots_bit_for_bit(host, models, projection, pictures):
    for text in ("", "a dog"):
        found = run(host, projection, models, pictures[:1], text, images=SLOTS, strength=0.7)
        plain = run(host, projection, models, pictures[:1], text, strength=0.7)
        assert torch.equal(found[0][0], plain[0][0])


# --- saved prompts ----------------------------------------------------------------------------


@pytest.fixture
def saved(host, projection):
    """Saves a CONDITIONING and returns the file's name in the list of Load Prompt."""
    return lambda found, prefix: save_prompt(host, projection, found, prefix)


def load(host, models, file, text="", **changes):
    settings = {"text_weight": 0.6, "strength": 1.0, "blend": "add", **changes}
    with torch.inference_mode():
        node = host.classes["ImageToPromptLoadPrompt"]
        return node.execute(file, models[1], text, **settings).args[0]


@pytest.mark.parametrize("text", ["", "a dog", LONG])
@pytest.mark.parametrize("images", ["one prompt per image", SLOTS])
def test_a_saved_prompt_is_the_pictures_bit_for_bit(
    host, models, projection, pictures, saved, text, images
):
    file = saved(run(host, projection, models, pictures, images=images), "shared/prompt")
    found = load(host, models, file, text, strength=0.8)
    wanted = run(host, projection, models, pictures, text, images=images, strength=0.8)
    assert torch.equal(found[0][0], wanted[0][0])
    assert torch.equal(found[0][1]["pooled_output"], wanted[0][1]["pooled_output"])


def test_a_prompt_with_a_long_text_comes_back(host, models, projection, pictures, saved):
    made = run(host, projection, models, pictures[:1], LONG)
    found = load(host, models, saved(made, "long"))
    assert torch.equal(found[0][0], made[0][0])


def test_a_short_text_joins_the_first_chunk_of_a_long_prompt(
    host, models, projection, pictures, saved
):
    made = run(host, projection, models, pictures[:1], LONG)
    file = saved(made, "longer")
    found, plain = load(host, models, file, "a dog"), load(host, models, file)
    assert torch.equal(found[0][0][:, 77:], plain[0][0][:, 77:])
    assert not torch.equal(found[0][0][:, :77], plain[0][0][:, :77])


def test_what_is_no_single_entry_is_not_saved(host, projection):
    node = host.classes["ImageToPromptSavePrompt"]
    for bad in (None, [], [[torch.zeros(1, 77, 768), {}]] * 2, torch.zeros(1, 77, 768), [1]):
        with pytest.raises(ImageToPromptError, match="one entry"):
            node.execute(bad, projection, "bad")
    with pytest.raises(ImageToPromptError, match="sockets conditioning, projection"):
        node.execute([[torch.zeros(1, 77, 32), {}]], projection, "bad")


def test_a_file_that_is_not_there_is_refused(host, models):
    for name in ("gone.safetensors", None, "../x.safetensors"):
        with pytest.raises(ImageToPromptError, match="which is not there"):
            load(host, models, name)


# --- behind core's nodes ----------------------------------------------------------------------


def test_cores_conditioning_nodes_take_every_output(host, models, projection, pictures, saved):
    import nodes as core

    text = core.CLIPTextEncode().encode(models[1], "a cat")[0]
    plain = run(host, projection, models, pictures, images=SLOTS)
    made = {
        "mix": mix(host, projection, models, pictures[:1], pictures[1:2]),
        "slots": plain,
        "loaded": load(host, models, saved(plain, "core")),
    }
    for name, found in made.items():
        states = found[0][0]
        combined = core.ConditioningCombine().combine(found, text)[0]
        assert [tuple(entry[0].shape) for entry in combined] == [(1, 77, 768)] * 2, name
        half = core.ConditioningAverage().addWeighted(found, text, 0.25)[0][0][0]
        assert torch.allclose(half, 0.25 * states + 0.75 * text[0][0], atol=1e-4), name
        joined = core.ConditioningConcat().concat(found, text)[0][0][0]
        assert torch.equal(joined, torch.cat([states, text[0][0]], dim=1)), name
        mask = torch.ones(1, 64, 64)
        masked = core.ConditioningSetMask().append(found, mask, "default", 0.5)[0][0]
        assert torch.equal(masked[0], states) and masked[1]["mask_strength"] == 0.5, name
        area = core.ConditioningSetArea().append(found, 64, 64, 0, 0, 1.0)[0][0]
        assert torch.equal(area[0], states) and area[1]["area"] == (8, 8, 0, 0), name
        ranged = core.ConditioningSetTimestepRange().set_range(found, 0.0, 0.5)[0][0]
        assert torch.equal(ranged[0], states) and ranged[1]["end_percent"] == 0.5, name
