"""Prompt embeddings of a collection of images, batch by batch, in bounded memory.

    embedder = BatchEmbedder(decode, encode, projection, batch_size=64)
    for rows in embed(batches, lambda: embedder): ...

A batch is a mapping of columns of equal length: `name` (str) and `bytes` (an image file's
content). Its rows come back in order, with the columns

    name        as given
    embedding   (B, D) float16, prompt embeddings as `Projection.apply` gives them; zeros where
                there is an error
    error       what is wrong with the image file; empty if nothing is

A prompt is rebuilt from its row: `assemble(sos, embedding)`, or `condition` with a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from ..projector import Projection

Batch = Mapping[str, Sequence[Any]]


class BatchEmbedder:
    """Embeds batches of image files.

    decode: an image file's content as pixels (3, S, S), preprocessed for the vision encoder; an
    OSError or ValueError of it is the image's error. encode: pixels (B, 3, S, S) to image
    embeddings (B, J), joint CLIP space, not normalised. batch_size: every batch is filled up to it
    with zeros, so that a row does not depend on how many images its batch has.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Tensor],
        encode: Callable[[Tensor], Tensor],
        projection: Projection,
        batch_size: int,
    ) -> None:
        self._decode, self._encode = decode, encode
        self._projection, self.batch_size = projection, batch_size

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """The rows of a batch of at most `batch_size` images. Raises ImageToPromptError."""
        return self.embedded(self.decoded(batch))

    def decoded(self, batch: Batch) -> tuple[Batch, list[Tensor | None], list[str]]:
        """A batch with its images' pixels and errors; can be run ahead, in another thread."""
        count = len(batch["name"])
        if count > self.batch_size:
            raise ImageToPromptError(
                f"at most {self.batch_size} images in a batch", f"{count}", "Make batches smaller."
            )
        pixels: list[Tensor | None] = []
        errors: list[str] = []
        for content in batch["bytes"]:
            try:
                pixels.append(self._decode(content))
                errors.append("")
            except (OSError, ValueError) as error:
                pixels.append(None)
                errors.append(str(error) or type(error).__name__)
        return batch, pixels, errors

    @torch.no_grad()
    def embedded(self, decoded: tuple[Batch, list[Tensor | None], list[str]]) -> dict[str, Any]:
        """The rows of a batch whose images are decoded."""
        batch, pixels, errors = decoded
        width = self._projection.encoder.text_width
        rows = torch.zeros(len(pixels), width, dtype=torch.float16)
        good = [index for index, image in enumerate(pixels) if image is not None]
        images = [image for image in pixels if image is not None]
        if images:
            empty = torch.zeros_like(images[0])
            stacked = torch.stack(images + [empty] * (self.batch_size - len(images)))
            found = self._encode(stacked)[: len(images)]
            rows[good] = self._projection.apply(found).to("cpu", torch.float16)
        return {"name": list(batch["name"]), "embedding": rows.numpy(), "error": errors}


def embed(collection: Any, make: Callable[[], BatchEmbedder], **options: Any) -> Any:
    """Rows of a collection: a dataset's own type where it has `map_batches`, else an iterator.

    collection: a Ray Dataset with the columns of a batch, or an iterable of batches. make: makes
    the embedder, once in each worker process of a dataset. options: for `map_batches`, such as
    `batch_size`, which must not be above the embedder's, `concurrency` and `num_gpus`.
    Nothing is computed before the result is read.
    """
    if hasattr(collection, "map_batches"):
        return collection.map_batches(_InWorker, fn_constructor_args=(make,), **options)
    return map(make(), collection)


def batches(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Batch]:
    """Batches of `size` rows with the columns `name` and `bytes`; the last may have fewer."""
    source = iter(rows)
    while part := list(islice(source, size)):
        yield {key: [row[key] for row in part] for key in ("name", "bytes")}


class _InWorker:
    def __init__(self, make: Callable[[], BatchEmbedder]) -> None:
        self._embedder = make()

    def __call__(self, batch: Batch) -> dict[str, Any]:
        return self._embedder(batch)
