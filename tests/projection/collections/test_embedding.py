"""Batched prompt embeddings against one image at a time; broken files; bounded memory."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError, Projection
from image_to_prompt.projection.collections.embedding import BatchEmbedder, batches, embed
from image_to_prompt.tests.fixtures import builders

WIDTH, SIZE = 32, 4


@pytest.fixture(scope="module")
def projection():
    return Projection.from_text_projection(builders.text_projection(WIDTH))


@pytest.fixture(scope="module")
def weight():
    return builders.normal(3 * SIZE * SIZE, WIDTH, seed=1)


def decode(content: bytes) -> torch.Tensor:
    if content == b"broken":
        raise ValueError("no image file")
    return builders.normal(3, SIZE, SIZE, seed=int(content))


@pytest.fixture
def embedder(projection, weight):
    """Counts the batches that its encoder has seen, by shape."""
    seen = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(pixels.shape))
        return pixels.flatten(1) @ weight

    made = BatchEmbedder(decode, encode, projection, batch_size=4)
    made.seen = seen
    return made


def rows(count: int, broken=()) -> list[dict]:
    return [
        {"name": f"{n}.png", "bytes": b"broken" if n in broken else str(n).encode()}
        for n in range(count)
    ]


def test_rows_are_those_of_single_images(embedder, projection, weight):
    found = list(embed(batches(rows(10), 4), lambda: embedder))
    assert [len(part["name"]) for part in found] == [4, 4, 2]
    assert embedder.seen == [(4, 3, SIZE, SIZE)] * 3, "every batch has one size"
    for number in range(10):
        alone = projection.apply(decode(str(number).encode()).flatten()[None] @ weight)[0]
        row = torch.from_numpy(found[number // 4]["embedding"])[number % 4]
        assert row.dtype == torch.float16
        assert torch.allclose(row.float(), alone, atol=2e-2), number
        assert abs(row.float().norm() - projection.norm) < 0.02


def test_a_broken_file_is_a_row_with_its_error_and_changes_no_other(embedder):
    [whole] = embed(batches(rows(4), 4), lambda: embedder)
    [part] = embed(batches(rows(4, broken=(1, 2)), 4), lambda: embedder)
    assert part["error"] == ["", "no image file", "no image file", ""]
    assert part["name"] == whole["name"]
    assert (part["embedding"][[0, 3]] == whole["embedding"][[0, 3]]).all()
    assert not part["embedding"][1].any()


def test_a_batch_of_broken_files_only_needs_no_encoder(embedder):
    [part] = embed(batches(rows(3, broken=range(3)), 4), lambda: embedder)
    assert not embedder.seen and len(part["name"]) == 3


def test_a_batch_that_is_too_large_is_refused(embedder):
    with pytest.raises(ImageToPromptError, match="at most 4 images"):
        embedder({"name": ["a"] * 5, "bytes": [b"1"] * 5})


def test_no_batch_is_read_before_it_is_needed(embedder):
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield {"name": str(number), "bytes": str(number).encode()}
            number += 1

    source = embed(batches(endless(), 4), lambda: embedder)
    assert taken == []
    next(source)
    assert len(taken) == 4


def test_a_dataset_maps_its_own_batches(embedder):
    class Dataset:
        def map_batches(self, made, fn_constructor_args, **options):
            self.options = options
            worker = made(*fn_constructor_args)
            return [worker(batch) for batch in batches(rows(6), options["batch_size"])]

    dataset = Dataset()
    found = embed(dataset, lambda: embedder, batch_size=3, num_gpus=1)
    assert dataset.options == {"batch_size": 3, "num_gpus": 1}
    assert [list(part["name"]) for part in found] == [
        ["0.png", "1.png", "2.png"],
        ["3.png", "4.png", "5.png"],
    ]
