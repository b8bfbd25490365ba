"""The real text projection of OpenAI's CLIP ViT-L/14, where it is at hand."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import Projection, decompose, invert, load_file
from image_to_prompt.tests.fixtures import builders


@pytest.fixture(scope="module")
def weights(real):
    return real["text_projection.weight"], real["visual_projection.weight"]


@pytest.fixture(scope="module")
def projection(weights):
    return Projection.from_text_projection(*weights)


@pytest.fixture(scope="module")
def svd(weights):
    return decompose(weights[0])


@pytest.fixture(scope="module")
def embeds(real):
    """Image embeddings (500, 768) of isotropic CLS states through the real W_v."""
    return builders.normal(500, 1024, seed=2) @ real["visual_projection.weight"].T


def test_the_shipped_singular_values_are_those_of_the_real_matrix(real):
    values = torch.linalg.svdvals(real["text_projection.weight"].double())
    assert torch.allclose(builders.spectrum(), values, rtol=0, atol=1e-9)


def test_the_automatic_choice_on_the_real_matrix_is_the_paper(projection):
    assert (projection.method, projection.cutoff, projection.kept, projection.norm) == (
        "pseudo-inverse",
        0.3,
        607,
        27.5,
    )
    assert projection.encoder.name == "CLIP ViT-L/14"
    assert repr(projection) == "Projection(CLIP ViT-L/14, pseudo-inverse, kept 607 of 768)"


def test_a_prompt_embedding_projects_back_onto_its_picture(real, projection, embeds):
    back = projection.apply(embeds) @ real["text_projection.weight"].T
    cosine = torch.nn.functional.cosine_similarity(back, embeds)
    assert float(cosine.mean()) == pytest.approx(0.9886, abs=0.002)


def test_the_length_before_scaling_is_as_measured(projection, embeds):
    gain = (embeds @ projection.matrix.T).norm(dim=-1) / embeds.norm(dim=-1)
    assert float(gain.mean()) == pytest.approx(2.244, abs=0.01)


@pytest.mark.parametrize(
    ("method", "cutoff", "cosine"),
    [
        ("pseudo-inverse", 0.05, 0.894),
        ("pseudo-inverse", 0.2, 0.985),
        ("pseudo-inverse", 0.4, 0.868),
        ("ridge", 0.03**0.5, 0.983),
        ("ridge", 0.1**0.5, 0.989),
        ("transpose", 0.3, 0.969),
    ],
)
def test_other_inverses_lie_at_their_measured_angles(
    svd, projection, embeds, method, cutoff, cosine
):
    turned = embeds @ invert(svd, method, cutoff).matrix.T
    got = torch.nn.functional.cosine_similarity(turned, projection.apply(embeds))
    assert float(got.mean()) == pytest.approx(cosine, abs=0.004)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.9999), (torch.bfloat16, 0.99)])
def test_coarser_copies_of_the_real_matrix_are_accepted(weights, projection, embeds, dtype, bound):
    copy = Projection.from_text_projection(*(weight.to(dtype) for weight in weights))
    cosine = torch.nn.functional.cosine_similarity(copy.apply(embeds), projection.apply(embeds))
    assert float(cosine.min()) > bound
    if dtype == torch.float16:
        assert copy.kept == 607
        assert copy.encoder == projection.encoder, "fp16 and fp32 copies are one encoder"


def test_the_real_file_loads_as_a_full_clip_file(projection):
    loaded = load_file(builders.REAL_PROJECTIONS)
    assert torch.equal(loaded.matrix, projection.matrix)
    assert loaded.encoder == projection.encoder
