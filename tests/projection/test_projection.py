"""Projection: from image embeddings to prompt embeddings."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    FIT,
    PAPER_NORM,
    REFINE,
    ClipIdentity,
    DeepPrompts,
    FullDelta,
    ImageToPromptError,
    Projection,
    Residual,
    UNetDeltas,
    decompose,
    portable_cutoff,
)
from image_to_prompt.tests.fixtures import builders

WIDTH = 32
EMBEDS = builders.normal(6, WIDTH, seed=9)


@pytest.fixture(scope="module", params=["plain", "with a bias"])
def projection(request):
    plain = builders.small_projection(WIDTH)
    return plain if request.param == "plain" else builders.with_bias(plain)


def test_every_prompt_embedding_has_the_length_27_5(projection):
    length = projection.apply(EMBEDS).double().norm(dim=-1)
    assert PAPER_NORM == 27.5
    assert ((length / 27.5 - 1).abs() < 1e-5).all()


def test_the_length_is_27_5_at_full_width_too():
    projection = Projection.from_text_projection(builders.text_projection(768))
    length = projection.apply(builders.normal(50, 768, seed=1)).double().norm(dim=-1)
    assert ((length / 27.5 - 1).abs() < 1e-5).all()
    assert (projection.cutoff, projection.kept) == (0.3, 607)


def test_the_length_is_set_after_the_inverse():
    """u first, then 27.5 u/|u|; scaling before would leave |M v| times another length."""
    projection = builders.small_projection(WIDTH)
    u = EMBEDS.double() @ projection.matrix.double().T
    wanted = 27.5 * u / u.norm(dim=-1, keepdim=True)
    assert torch.allclose(projection.apply(EMBEDS).double(), wanted, atol=1e-4)
    before = 27.5 * normalize(EMBEDS.double(), dim=-1) @ projection.matrix.double().T
    assert not torch.allclose(wanted, before, atol=1.0)


def test_a_bias_is_added_to_the_inverse_of_the_unit_embedding():
    projection = builders.with_bias(builders.small_projection(WIDTH))
    u = normalize(EMBEDS.double(), dim=-1) @ projection.matrix.double().T + projection.bias.double()
    wanted = 27.5 * u / u.norm(dim=-1, keepdim=True)
    assert torch.allclose(projection.apply(EMBEDS).double(), wanted, atol=1e-4)
    plain = builders.small_projection(WIDTH).apply(EMBEDS)
    assert not torch.allclose(projection.apply(EMBEDS), plain, atol=1.0)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 3.0, 27.5, 1e4, 1e12])
def test_the_length_of_an_image_embedding_does_not_matter(projection, scale):
    assert torch.allclose(projection.apply(scale * EMBEDS), projection.apply(EMBEDS), atol=1e-4)


def test_the_sign_of_an_image_embedding_does_matter():
    projection = builders.small_projection(WIDTH)
    assert torch.allclose(projection.apply(-EMBEDS), -projection.apply(EMBEDS), atol=1e-4)


def test_a_row_of_a_batch_is_that_row_alone(projection):
    batch = projection.apply(EMBEDS)
    assert batch.shape == (len(EMBEDS), WIDTH)
    for index in range(len(EMBEDS)):
        alone = projection.apply(EMBEDS[index : index + 1])
        assert torch.allclose(batch[index], alone[0], rtol=0, atol=27.5e-6)


def test_an_empty_batch_gives_an_empty_batch(projection):
    assert projection.apply(EMBEDS[:0]).shape == (0, WIDTH)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_of_any_precision_give_float32(projection, dtype):
    given = EMBEDS.to(dtype)
    result = projection.apply(given)
    assert result.dtype == torch.float32
    assert torch.allclose(result, projection.apply(given.float()), atol=1e-4)


def test_applying_changes_neither_the_input_nor_the_projection(projection):
    given, matrix = EMBEDS.clone(), projection.matrix.clone()
    projection.apply(given)
    assert torch.equal(given, EMBEDS)
    assert torch.equal(projection.matrix, matrix)


def test_making_a_projection_changes_no_weights_and_keeps_no_graph():
    text = torch.nn.Parameter(builders.text_projection(WIDTH).clone())
    visual = torch.nn.Parameter(builders.visual_projection(WIDTH).clone())
    before = text.detach().clone()
    projection = Projection.from_text_projection(text, visual)
    assert torch.equal(text, before)
    assert not projection.matrix.requires_grad
    assert torch.equal(projection.matrix, builders.small_projection(WIDTH).matrix)


def test_a_projection_cannot_be_changed(projection):
    with pytest.raises(FrozenInstanceError):
        projection.norm = 1.0


def test_another_length_can_be_asked_for():
    projection = Projection.from_text_projection(builders.text_projection(WIDTH), norm=28.9096)
    assert projection.apply(EMBEDS).norm(dim=-1).tolist() == pytest.approx([28.9096] * len(EMBEDS))


def test_the_automatic_cutoff_of_another_encoder_is_the_portable_rule():
    weight = builders.text_projection(WIDTH)
    projection = Projection.from_text_projection(weight)
    values = decompose(weight).values
    assert projection.cutoff == pytest.approx(portable_cutoff(values))
    assert projection.kept == int((values >= portable_cutoff(values)).sum())


@pytest.mark.parametrize(
    ("widths", "name", "vit_l14"),
    [
        ((768, 768, 1024), "CLIP ViT-L/14", True),
        ((768, 768, None), "CLIP ViT-L/14", True),
        ((768, 768, 1280), "a CLIP with text width 768 and joint width 768", False),
        ((1024, 1024, 1280), "OpenCLIP ViT-H/14", False),
        ((1280, 1280, 1664), "OpenCLIP ViT-bigG/14", False),
        ((512, 512, 768), "CLIP ViT-B", False),
        ((32, 48, 64), "a CLIP with text width 32 and joint width 48", False),
    ],
)
def test_an_encoder_is_named_by_its_widths(widths, name, vit_l14):
    encoder = ClipIdentity(*widths, text_projection="0")
    assert encoder.name == name
    assert encoder.is_vit_l14 is vit_l14


def test_the_paper_cutoff_is_only_for_the_widths_of_vit_l14():
    weight = builders.text_projection(768) * 0.8
    as_vit_l14 = Projection.from_text_projection(weight, builders.visual_projection(768, 1024))
    other = Projection.from_text_projection(weight, builders.visual_projection(768, 1280))
    assert as_vit_l14.cutoff == 0.3
    assert other.cutoff == pytest.approx(0.8 * 0.29993, abs=1e-5)
    assert other.kept == 607


def test_a_fingerprint_tells_weights_apart_but_not_their_precision():
    text, visual = builders.text_projection(WIDTH), builders.visual_projection(WIDTH)
    encoder = ClipIdentity.of(text, visual)
    assert ClipIdentity.of(text.half(), visual.half()) == encoder
    assert ClipIdentity.of(text.T.contiguous().T, visual) == encoder
    changed = text.clone()
    changed[3, 5] += 0.01
    assert ClipIdentity.of(changed, visual).text_projection != encoder.text_projection
    assert ClipIdentity.of(text.T, visual).text_projection != encoder.text_projection
    assert ClipIdentity.of(text, visual + 0.01).visual_projection != encoder.visual_projection
    assert (encoder.text_width, encoder.joint_width, encoder.vision_width) == (32, 32, 48)
    assert ClipIdentity.of(text).vision_width is None


def test_a_fingerprint_depends_on_the_shape_and_not_only_on_the_numbers():
    flat = torch.arange(12.0)
    wide, tall = ClipIdentity.of(flat.reshape(3, 4)), ClipIdentity.of(flat.reshape(4, 3))
    assert wide.text_projection != tall.text_projection


def test_a_projection_describes_itself_in_one_line(projection):
    kept = projection.kept
    assert repr(projection).endswith(f"pseudo-inverse, kept {kept} of {WIDTH})")
    assert "\n" not in repr(projection)


def test_the_repr_says_what_was_refined_and_stays_short():
    plain = builders.small_projection()
    residual = Residual(torch.zeros(2, 32), torch.zeros(32, 2), torch.ones(32))
    block = "input_blocks.1.1.transformer_blocks.0."
    reads = UNetDeltas({f"{block}attn2.to_k": FullDelta(torch.ones(8, 32))})
    blocks = UNetDeltas({f"{block}attn1.to_q": FullDelta(torch.ones(8, 8))})
    prompts = DeepPrompts(torch.ones(2, 3, 48), torch.ones(2, 4))
    assert "refined" not in repr(plain)
    for said, parts in {
        "embedding": {"residual": residual},
        "cross-attention": {"cross_attention": reads},
        "embedding + cross-attention": {"residual": residual, "cross_attention": reads},
        "transformer blocks": {"cross_attention": blocks},
        "full": {"residual": residual, "cross_attention": reads, "vision": prompts},
    }.items():
        assert said in (*REFINE, *FIT)
        assert repr(replace(plain, **parts)).endswith(f", refined: {said})")
    assert len(repr(replace(plain, method="m" * 10**6))) < 500


@pytest.mark.parametrize("kind", ["whole", "complex", "truth", "sparse"])
def test_embeddings_that_are_no_plain_floats_are_refused(kind):
    embeds = builders.normal(2, 32)
    odd = {
        "whole": embeds.long(),
        "complex": embeds.to(torch.complex64),
        "truth": embeds > 0,
        "sparse": embeds.to_sparse(),
    }
    with pytest.raises(ImageToPromptError, match="plain floating-point numbers"):
        builders.small_projection().apply(odd[kind])
