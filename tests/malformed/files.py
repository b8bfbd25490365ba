"""Malformed files: what is no CLIP file, and what only looks like one."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import content_hash, load_file, load_projection
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed.case import Case

NAME = "bad.safetensors"
ADVICE = ("LoadProjection", "clip-vit-large-patch14", "models/text_encoders", "models/clip_vision")


def header(entries: object, payload: bytes = b"") -> bytes:
    """A safetensors file with any header at all."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + payload


def entry(dtype: str = "F32", shape: tuple[int, ...] = (4, 4), begin: int = 0, end: int = 64):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


WHOLE = header({"text_projection.weight": entry()}, bytes(64))

# --- not a safetensors file at all: name -> bytes ---------------------------------------------

BYTES: dict[str, bytes] = {
    "an empty file": b"",
    "one byte": b"\0",
    "seven bytes": b"\0" * 7,
    "eight zeros": b"\0" * 8,
    "a header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "a header of 2**63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header of braces": header(b"{" * 50),
    "a header that is not text": header(b"\xff\xfe\xff\xff"),
    "a header that is a list": header([]),
    "a header that is a number": header(7),
    "a header cut in the middle": header(b'{"text_projection.weight": {"dtype": "F3'),
    "a web page saved as a model": b"<!DOCTYPE html><html><title>404</title></html>" * 40,
    "a note left by git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a text file": b"put your CLIP file here\n" * 10,
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 200,
    "a pickle": pickle.dumps({"text_projection.weight": [1.0] * 16}),
    "a json file": json.dumps({"text_projection.weight": [1, 2]}).encode(),
    "a gguf file": b"GGUF\x03\0\0\0" + b"\0" * 100,
    "random bytes": bytes(range(256)) * 8,
    "a download that stopped in the numbers": WHOLE[:-10],
    "a download that stopped in the header": WHOLE[:20],
    "a file with something after its end": WHOLE + b"more",
    "numbers of an unknown kind": header({"text_projection.weight": entry("F12")}, bytes(64)),
    "a shape that needs more numbers": header(
        {"text_projection.weight": entry(shape=(9, 9))}, bytes(64)
    ),
    "offsets that run backwards": header(
        {"text_projection.weight": entry(begin=64, end=0)}, bytes(64)
    ),
    "offsets outside the file": header(
        {"text_projection.weight": entry(begin=960, end=1024)}, bytes(64)
    ),
    "a header nested too deep": header(b"[" * 200_000),
    "a header that promises gigabytes": (2**31).to_bytes(8, "little") + b"{}",
    "metadata that are a list": header({"__metadata__": ["format"], "a": entry()}, bytes(64)),
    "metadata that are numbers": header({"__metadata__": {"format": 1}}),
    "a shape of truth values": header({"a": entry(shape=(True, 16))}, bytes(64)),
    "a shape below zero": header({"a": entry(shape=(-4, -4))}, bytes(64)),
    "a shape beyond numbers": header({"a": entry(shape=(10**400, 0), end=0)}),
    "tensors that overlap": header(
        {"a": entry(), "text_projection.weight": entry(begin=32, end=96)}, bytes(96)
    ),
    "a gap between tensors": header(
        {"a": entry(), "text_projection.weight": entry(begin=80, end=144)}, bytes(144)
    ),
    "an entry without a shape": header({"text_projection.weight": {"dtype": "F32"}}, bytes(64)),
}


def _bytes_case(name: str, content: bytes) -> Case:
    def act(folder: Path) -> object:
        path = folder / NAME
        path.write_bytes(content)
        return load_file(path)

    return Case(f"file: {name}", act, (NAME, "safetensors", *ADVICE))


# --- safetensors files that hold no trained text projection -----------------------------------


def _with(**changes: Tensor) -> dict[str, Tensor]:
    named = {key.replace("__", "."): tensor for key, tensor in changes.items()}
    return {**builders.transformers_clip(), **named}


def _text(weight: Tensor) -> dict[str, Tensor]:
    return _with(text_projection__weight=weight)


def _only(weight: Tensor) -> dict[str, Tensor]:
    return {"text_projection.weight": weight}


W = builders.text_projection()
SIZE = len(W)
NAN = torch.full((SIZE, SIZE), float("nan"))


def _one(value: float, row: int = 3, column: int = 5) -> Tensor:
    weight = W.clone()
    weight[row, column] = value
    return weight


def _low_rank(rank: int) -> Tensor:
    return builders.normal(64, rank, seed=1) @ builders.normal(rank, 64, seed=2)


# name -> tensors, what the message says was got
TENSORS: dict[str, tuple[dict[str, Tensor], str]] = {
    "no tensors": ({}, "holds none of"),
    "tensors of something else": ({"lora_up.weight": W}, "holds none of"),
    "a VAE": ({"decoder.conv_in.weight": W}, "holds none of"),
    "a Stable Diffusion 1.x checkpoint": (builders.sd1_checkpoint(), "Stable Diffusion checkpoint"),
    "a vision model alone": (builders.vision_only(), "vision-only file"),
    "an OpenCLIP vision model alone": ({"visual.proj": W}, "vision-only file"),
    "a text encoder without projection": (
        builders.text_only(projection=False),
        "without its projection",
    ),
    "a text encoder with a prefix": (
        {"transformer.text_model.final_layer_norm.weight": W},
        "without its projection",
    ),
    "a projection under another name": ({"text_projection.bias": W[0]}, "holds none of"),
    "an identity": (_text(torch.eye(SIZE)), "identity"),
    "an identity in half precision": (_text(torch.eye(SIZE).half()), "identity"),
    "a scaled identity": (_text(torch.eye(SIZE) * 0.4), "identity"),
    "a rotation": (_text(builders.orthogonal(SIZE, 9).float()), "rotation"),
    "zeros": (_text(torch.zeros(SIZE, SIZE)), "only zeros"),
    "zeros in half precision": (_text(torch.zeros(SIZE, SIZE).half()), "only zeros"),
    "all NaN": (_text(NAN), "NaN"),
    "one NaN": (_text(_one(float("nan"))), "NaN"),
    "one infinite number": (_text(_one(float("inf"))), "infinite"),
    "one infinite number in half precision": (_text(_one(1e6).half()), "infinite"),
    "random numbers": (_only(builders.normal(96, 96) * 0.05), "random numbers"),
    "leftovers of memory": (_text(builders.normal(SIZE, SIZE) * 1e-6), "wrong size"),
    "weights a thousand times too large": (_text(W * 1000), "wrong size"),
    "weights a thousand times too small": (_text(W / 1000), "wrong size"),
    "a matrix of rank 1": (_only(_low_rank(1)), "rank 1"),
    "a matrix of rank 2": (_only(_low_rank(2)), "rank 2"),
    "a vector": (_text(W[0]), "shape (32,)"),
    "a single number": (_text(torch.tensor(1.0)), "shape ()"),
    "three dimensions": (_text(W.reshape(SIZE, 4, -1)), "shape (32, 4, 8)"),
    "more numbers than any projection": (_only(torch.zeros(2**11, 2**12)), "(2048, 4096)"),
    "a single row": (_text(W[:1]), "shape (1, 32)"),
    "a single column": (_text(W[:, :1]), "shape (32, 1)"),
    "no rows": (_text(W[:0]), "shape (0, 32)"),
    "whole numbers": (_text((W * 100).to(torch.int8)), "torch.int8"),
    "whole numbers of 32 bits": (_text((W * 100).int()), "torch.int32"),
    "truth values": (_text(W > 0), "torch.bool"),
    "eight-bit floats (e4m3)": (_text(W.to(torch.float8_e4m3fn)), "float8_e4m3fn"),
    "eight-bit floats (e5m2)": (_text(W.to(torch.float8_e5m2)), "float8_e5m2"),
    "a vision projection with another joint width": (
        _with(visual_projection__weight=builders.normal(48, 40)),
        "gives 48",
    ),
    "a vision projection that lies on its side": (
        _with(visual_projection__weight=builders.visual_projection().T),
        "gives 48",
    ),
    "a vision projection that is a vector": (_with(visual_projection__weight=W[0]), "(32,)"),
    "a vision projection of NaN": (_with(visual_projection__weight=NAN), "NaN"),
    "a vision projection of zeros": (
        _with(visual_projection__weight=torch.zeros(SIZE, 48)),
        "only zeros",
    ),
    "a quantised vision projection": (
        _with(visual_projection__weight=torch.ones(SIZE, 48).to(torch.int8)),
        "torch.int8",
    ),
}
for _layout in (builders.openclip_clip, builders.custom_text_clip):
    for _what, _bad, _got in (
        ("an identity", torch.eye(SIZE), "identity"),
        ("a vector", W[0], "shape (32,)"),
        ("NaN", NAN, "NaN"),
        ("whole numbers", W.int(), "torch.int32"),
    ):
        _key = next(key for key in _layout() if "text_projection" in key)
        TENSORS[f"{_what} as {_key}"] = ({**_layout(), _key: _bad}, _got)


def _tensors_case(name: str, tensors: dict[str, Tensor], got: str) -> Case:
    def act(folder: Path) -> object:
        return load_file(builders.write(folder / NAME, tensors))

    return Case(f"clip file: {name}", act, (got,))


# --- what is at the path ----------------------------------------------------------------------


def _directory(folder: Path) -> Path:
    (folder / NAME).mkdir()
    return folder / NAME


def _torch_file(folder: Path) -> Path:
    torch.save({"text_projection.weight": W}, folder / NAME)
    return folder / NAME


def _zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / NAME, "w") as file:
        file.writestr("model.safetensors", WHOLE)
    return folder / NAME


def _dangling(folder: Path) -> Path:
    (folder / NAME).symlink_to(folder / "gone")
    return folder / NAME


PATHS: dict[str, Callable[[Path], Path]] = {
    "a missing file": lambda folder: folder / NAME,
    "a file in a missing folder": lambda folder: folder / "none" / NAME,
    "a folder": _directory,
    "a link to nothing": _dangling,
    "a .bin with pickled tensors, renamed": _torch_file,
    "a zip": _zip,
}
READERS = {"load_file": load_file, "content_hash": content_hash, "load_projection": load_projection}


def _path_case(name: str, make: Callable[[Path], Path], reader: str) -> Case:
    return Case(
        f"{reader}: {name}", lambda folder: READERS[reader](make(folder)), (NAME, "safetensors")
    )


CASES = [
    *(_bytes_case(*item) for item in BYTES.items()),
    *(_tensors_case(name, *rest) for name, rest in TENSORS.items()),
    *(_path_case(name, make, reader) for name, make in PATHS.items() for reader in READERS),
]
