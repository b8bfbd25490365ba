"""Laws over many shapes, batches, texts, strengths and weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image_to_prompt.projection import (
    BLENDS,
    METHODS,
    ClipIdentity,
    ImageToPromptError,
    Projection,
    apply_strength,
    condition,
    decompose,
    first_eos,
    image_slots,
    invert,
    load_projection,
    save_projection,
    spherical_mean,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fixtures.builders import normal

settings.register_profile("laws", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("laws")

seeds = st.integers(0, 2**31)
widths = st.integers(2, 40)
batches = st.integers(1, 9)
ends = st.lists(st.integers(1, 76), min_size=1, max_size=3)
strengths = st.floats(-10, 10, allow_nan=False)
text_weights = st.floats(0, 10, allow_nan=False)
positive = st.floats(1e-3, 1e3)


def a_projection(text: int, joint: int, seed: int, bias: bool = False) -> Projection:
    """Any matrix at all: the artefact itself does not judge where its numbers come from."""
    return Projection(
        matrix=normal(text, joint, seed=seed),
        singular_values=normal(min(text, joint), seed=seed).abs().sort(descending=True).values,
        encoder=ClipIdentity(text, joint, None, "0"),
        method="pseudo-inverse",
        cutoff=0.3,
        kept=1,
        bias=normal(text, seed=seed + 1) if bias else None,
    )


@given(widths, widths, batches, seeds, st.booleans())
def test_every_batch_of_every_width_gives_rows_of_length_27_5(text, joint, batch, seed, bias):
    result = a_projection(text, joint, seed, bias).apply(normal(batch, joint, seed=seed + 2))
    assert result.shape == (batch, text)
    assert torch.allclose(result.norm(dim=-1), torch.tensor(27.5), rtol=1e-5)


@given(widths, widths, batches, seeds, st.booleans(), st.floats(1e-6, 1e6))
def test_scale_and_company_of_an_embedding_never_matter(text, joint, batch, seed, bias, scale):
    projection, v = a_projection(text, joint, seed, bias), normal(batch, joint, seed=seed + 2)
    together = projection.apply(scale * v)
    alone = torch.cat([projection.apply(row[None]) for row in v])
    assert torch.allclose(together, alone, rtol=1e-3, atol=2e-3)


@given(widths, batches, seeds)
def test_an_embedding_of_another_width_is_always_refused(width, batch, seed):
    projection = a_projection(5, width, seed)
    for other in (width - 1, width + 1):
        with pytest.raises(
            ImageToPromptError, match=r"Use (image embeddings|the CLIP vision encoder)"
        ):
            projection.apply(normal(batch, other))


@given(widths, widths, seeds, st.sampled_from(sorted(METHODS)), st.floats(1e-3, 1.0))
def test_every_inverse_is_built_from_the_gains_of_its_method(joint, text, seed, method, cutoff):
    weight = normal(joint, text, seed=seed).double()
    svd = decompose(weight)
    inverse = invert(svd, method, cutoff)
    assert inverse.matrix.shape == (text, joint)
    middle = svd.right @ inverse.matrix.double() @ svd.left  # g(s) on the diagonal, else 0
    s = svd.values
    gain = {"pseudo-inverse": (s >= cutoff) / s, "ridge": s / (s**2 + cutoff**2), "transpose": s}
    assert torch.allclose(middle, torch.diag(gain[method]), rtol=1e-5, atol=1e-4)


@given(st.integers(2, 12), batches, ends, text_weights, seeds, st.sampled_from(sorted(BLENDS)))
def test_what_is_before_an_eos_is_the_text_and_what_follows_has_the_picture(
    width, batch, eos, weight, seed, blend
):
    text, e = normal(1, 77 * len(eos), width, seed=seed), normal(batch, width, seed=seed + 1)
    slots = image_slots(eos, text)
    assert int(slots.sum()) == sum(77 - k for k in eos)
    conditioning = condition(text, eos, e, weight, blend)
    assert conditioning.shape == (batch, 77 * len(eos), width)
    assert torch.equal(conditioning[:, ~slots], text[:, ~slots].expand(batch, -1, -1))
    if blend == "add" and eos != [1]:
        added = conditioning[:, slots] - weight * text[:, slots]
        assert torch.allclose(added, e[:, None].expand_as(added), atol=1e-4)


@given(st.integers(2, 12), batches, ends, text_weights, seeds)
def test_a_picture_never_changes_the_prompt_of_another(width, batch, eos, weight, seed):
    text, e = normal(1, 77 * len(eos), width, seed=seed), normal(batch, width, seed=seed + 1)
    together = condition(text, eos, e, weight)
    alone = [condition(text, eos, row[None], weight) for row in e]
    assert torch.equal(together, torch.cat(alone))


@given(st.integers(1, 8), batches, st.integers(1, 3), strengths, seeds)
def test_strength_follows_its_formula(width, batch, chunks, strength, seed):
    conditioning = normal(batch, 77 * chunks, width, seed=seed)
    null = normal(1, 77, width, seed=seed + 1)
    result = apply_strength(conditioning, null, strength)
    if strength == 0:
        assert torch.equal(result, null.expand(batch, -1, -1))
    else:
        tiled = torch.cat([null] * chunks, dim=1)
        wanted = tiled + strength * (conditioning - tiled)
        assert torch.allclose(result, wanted, atol=1e-5)
    if strength == 1:
        assert torch.equal(result, conditioning)


@given(st.integers(1, 75), st.integers(0, 75), seeds)
def test_the_first_eos_is_found_wherever_it_is(words, pads, seed):
    ids = torch.randint(0, 49406, (words,), generator=builders.generator(seed)).tolist()
    assert first_eos([49406, *ids, *[49407] * (1 + pads)]) == words + 1


@given(st.integers(1, 6), st.data(), seeds)
def test_a_mean_is_on_the_sphere_whatever_the_order(count, data, seed):
    weights = data.draw(st.lists(positive, min_size=count, max_size=count))
    order = data.draw(st.permutations(range(count)))
    rows = normal(1, 16, seed=seed) + 0.5 * normal(count, 16, seed=seed + 1)
    rows = 27.5 * rows / rows.norm(dim=-1, keepdim=True)
    mean = spherical_mean(rows, weights)
    assert float(mean.norm()) == pytest.approx(27.5, rel=1e-5)
    assert torch.equal(spherical_mean(rows[list(order)], [weights[i] for i in order]), mean)


@given(st.integers(1, 10), st.data(), seeds)
def test_any_number_of_copies_at_any_weights_is_that_picture(count, data, seed):
    weights = data.draw(st.lists(positive, min_size=count, max_size=count))
    one = normal(1, 16, seed=seed)
    assert torch.equal(spherical_mean(one.repeat(count, 1), weights), one)


@settings(max_examples=25)
@given(widths, widths, seeds, st.booleans(), st.floats(1e-300, 1e300), st.floats(1e-30, 1e30))
def test_every_projection_survives_a_file(tmp_path_factory, text, joint, seed, bias, cutoff, norm):
    made = a_projection(text, joint, seed, bias)
    parts = {name: getattr(made, name) for name in Projection.__dataclass_fields__}
    projection = Projection(**{**parts, "cutoff": cutoff, "norm": norm})
    path = tmp_path_factory.mktemp("p") / "p.safetensors"
    save_projection(projection, path)
    loaded = load_projection(path)
    assert (loaded.cutoff, loaded.norm, loaded.encoder) == (cutoff, norm, projection.encoder)
    assert torch.equal(loaded.matrix, projection.matrix)
    assert torch.equal(loaded.singular_values, projection.singular_values)
    assert (loaded.bias is None) is (not bias)
    assert not bias or torch.equal(loaded.bias, projection.bias)
