"""Fixtures of the pure tier: the real W_t where it is at hand, and a stand-in with its spectrum."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file as load_tensors

from image_to_prompt.projection import decompose
from image_to_prompt.tests.fixtures import builders


@pytest.fixture(scope="session")
def real():
    """Both real projections of ViT-L/14: {"text_projection.weight", "visual_projection.weight"}."""
    if not builders.REAL_PROJECTIONS.is_file():
        pytest.skip("the real ViT-L/14 projections are not at ../shared/data")
    return load_tensors(builders.REAL_PROJECTIONS)


@pytest.fixture(scope="session", params=["real spectrum", "real matrix"])
def text_projection(request):
    """W_t (768, 768): one with the real singular values, and the real one."""
    if request.param == "real spectrum":
        return builders.text_projection(768)
    return request.getfixturevalue("real")["text_projection.weight"]


@pytest.fixture(scope="session")
def image_embeds():
    """Joint-space vectors (64, 768) of no particular length."""
    return builders.normal(64, 768, seed=5) * 0.5


@pytest.fixture(scope="session")
def svd(text_projection):
    """The decomposition of W_t: half a second at this width, so made once."""
    return decompose(text_projection)


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Matrices here are small: threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
