"""Safetensors files: equal bytes for equal content, and no memory for what is not wanted.

Read here and not by the safetensors package, which maps whole files, knows no limits of size, and
cannot open a path that is not UTF-8. Format: 8 bytes with the header's length, the header as JSON,
then the tensors' bytes end to end (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from ..closed_form.sanity import FILE_ADVICE
from ..errors import ImageToPromptError

# The headers of the largest checkpoints have under 1 MB.
_MAX_HEADER = 32 * 2**20
# A file of which less than this share is on disk is the rest of a download, or made to be large.
_MIN_SHARE_ON_DISK = 1 / 8
_SMALL = 64 * 2**20
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class Entry:
    """A tensor in the file: dtype by its safetensors name, bytes [begin, end) after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """The header of a safetensors file. body: where the tensors' bytes begin."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    body: int
    sparse: bool

    @classmethod
    def open(cls, path: str | Path) -> TensorFile:
        """Read the header. Raises ImageToPromptError for whatever is no safetensors file."""
        path = Path(path)
        try:
            with _opened(path) as file:
                return cls(path, *_header(file))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise _unreadable(path, error) from error

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these keys. Raises ImageToPromptError if they cannot be read."""
        try:
            with _opened(self.path) as file:
                return {key: self._tensor(file, key) for key in keys}
        except (OSError, ValueError, RuntimeError) as error:
            raise _unreadable(self.path, error) from error

    def read_all(self) -> dict[str, Tensor]:
        """Every tensor. Raises ImageToPromptError also where most of the file is not on disk."""
        if self.sparse:
            raise _unreadable(self.path, ValueError("most of the file was never written"))
        return self.read(self.entries)

    def _tensor(self, file: BinaryIO, key: str) -> Tensor:
        entry = self.entries[key]
        if entry.dtype not in _DTYPES:
            raise ValueError(f"numbers of the unknown kind {entry.dtype}")
        dtype = _DTYPES[entry.dtype]
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        file.seek(self.body + entry.begin)
        content = bytearray(file.read(entry.end - entry.begin))
        return torch.frombuffer(content, dtype=dtype).reshape(entry.shape)


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """A safetensors file in parts to be written one after the other."""
    content = memoryview(save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}))
    body = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:body]))
    # Sorted, for the package writes metadata in a random order.
    text = json.dumps({**header, "__metadata__": dict(metadata)}, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, content[body:]]


def _opened(path: Path) -> BinaryIO:
    """The file, opened to be read. Raises OSError for a pipe or device, which could block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "a folder, pipe or device, not a file")
    return open(path, "rb")


def _unreadable(path: Path, error: Exception) -> ImageToPromptError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageToPromptError(
        "a file in safetensors format", f"{path.name}: {reason}", FILE_ADVICE, "clip file"
    )


def _header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry], int, bool]:
    facts = os.fstat(file.fileno())
    length = int.from_bytes(file.read(8), "little")
    body = 8 + length
    if not 2 <= length <= _MAX_HEADER or body > facts.st_size:
        raise ValueError("no header that fits the file")
    header = json.loads(file.read(length).decode())
    if not isinstance(header, dict):
        raise ValueError("a header that is no table")
    metadata = header.pop("__metadata__", None) or {}
    if not all(isinstance(text, str) for item in dict(metadata).items() for text in item):
        raise ValueError("metadata that are no texts")
    entries = {key: _entry(value) for key, value in header.items()}
    _check_layout(entries, facts.st_size - body)
    on_disk = 512 * getattr(facts, "st_blocks", 0)
    sparse = facts.st_size > _SMALL and 0 < on_disk < _MIN_SHARE_ON_DISK * facts.st_size
    return metadata, entries, body, sparse


def _entry(value: Any) -> Entry:
    shape, (begin, end) = value["shape"], value["data_offsets"]
    numbers = [begin, end, *shape]
    whole = all(type(n) is int and 0 <= n < 2**48 for n in numbers) and len(shape) <= 16
    if not whole or type(value["dtype"]) is not str:
        raise ValueError("a tensor without a shape or place")
    return Entry(value["dtype"], tuple(shape), begin, end)


def _check_layout(entries: Mapping[str, Entry], size: int) -> None:
    """Raise ValueError unless the tensors fill `size` bytes, each as its shape needs."""
    place = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        width = _DTYPES[entry.dtype].itemsize if entry.dtype in _DTYPES else None
        fits = width is None or entry.end - entry.begin == width * math.prod(entry.shape)
        if entry.begin != place or not fits:
            raise ValueError("tensors of other sizes than their shapes")
        place = entry.end
    if place != size:
        raise ValueError(f"{size} bytes of tensors instead of {place}")
