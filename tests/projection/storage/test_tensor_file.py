"""Reading and writing safetensors: limits before memory, and equal bytes for equal content."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file as load_tensors

from image_to_prompt.projection import (
    ImageToPromptError,
    content_hash,
    load_file,
    load_projection,
    save_projection,
)
from image_to_prompt.projection.storage.tensor_file import TensorFile, encode
from image_to_prompt.tests.fixtures import builders

READERS = {"load_file": load_file, "content_hash": content_hash, "load_projection": load_projection}


def written(path, tensors, metadata):
    path.write_bytes(b"".join(encode(tensors, metadata)))
    return path


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool]
)
def test_tensors_are_read_as_the_safetensors_package_reads_them(tmp_path, dtype):
    tensors = {
        "b": builders.normal(3, 5).to(dtype),
        "a": builders.normal(7).half(),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
    }
    path = written(tmp_path / "t.safetensors", tensors, {"k": "v", "ä": "☃"})
    file = TensorFile.open(path)
    expected, found = load_tensors(path), file.read_all()
    assert file.metadata == {"k": "v", "ä": "☃"}
    assert found.keys() == expected.keys() == tensors.keys()
    for key in tensors:
        assert found[key].dtype == expected[key].dtype
        assert torch.equal(found[key], expected[key])


def test_equal_projections_give_equal_bytes(tmp_path):
    contents = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_projection(builders.with_bias(builders.small_projection()), path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def sparse(path, entries, metadata, size):
    """A file of a whole header and `size` bytes of tensors that were never written."""
    header = json.dumps({**entries, "__metadata__": metadata}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)
    return path


GIGABYTES = 2 * 2**30
ENTRY = {"dtype": "F32", "shape": [2**14, 2**15], "data_offsets": [0, GIGABYTES]}
MEASURE = """
import resource, runpy, sys
runpy.run_path(sys.argv[1])
from image_to_prompt.projection import ImageToPromptError, content_hash, load_file
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for read in (load_file, content_hash):
    try:
        read(sys.argv[2])
    except ImageToPromptError as error:
        print(error)
assert peak() - before < 50_000, f"{peak() - before} KiB"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in KiB is Linux's")
@pytest.mark.parametrize("kind", ["saved projection", "CLIP"])
def test_a_file_that_is_large_only_by_its_header_costs_no_memory(tmp_path, kind):
    saved = tmp_path / "good.safetensors"
    save_projection(builders.small_projection(), saved)
    metadata = dict(TensorFile.open(saved).metadata) if kind == "saved projection" else {}
    key = {"saved projection": "matrix", "CLIP": "text_projection.weight"}[kind]
    path = sparse(tmp_path / "hollow.safetensors", {key: ENTRY}, metadata, GIGABYTES)
    command = [sys.executable, "-c", MEASURE, builders.ROOT / "workflows" / "checkout.py", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hollow.safetensors" in done.stdout


def test_only_the_projections_of_a_clip_file_are_read(tmp_path):
    path = builders.write(tmp_path / "clip.safetensors", builders.transformers_clip())
    file = TensorFile.open(path)
    others = [key for key in file.entries if "projection" not in key]
    content = bytearray(path.read_bytes())
    expected = content_hash(path)
    for key in others:
        entry = file.entries[key]
        content[file.body + entry.begin : file.body + entry.end] = b"\xff" * (
            entry.end - entry.begin
        )
    path.write_bytes(content)
    assert others and content_hash(path) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_a_pipe_or_device_is_refused_before_it_is_opened(tmp_path, reader, kind):
    path = tmp_path / "p.safetensors"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    if kind == "pipe":
        path.unlink()
        os.rename(tmp_path / "pipe", path)
    with pytest.raises(ImageToPromptError, match="pipe or device"):
        READERS[reader](path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_that_is_not_utf8_is_read_and_printed(tmp_path):
    save_projection(builders.small_projection(), tmp_path / "p.safetensors")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/mod\xe8le.safetensors")
    with pytest.raises(ImageToPromptError, match=r"mod\\udce8le") as caught:
        load_file(path)
    str(caught.value).encode()
    os.rename(tmp_path / "p.safetensors", path)
    assert load_file(path).kept == builders.small_projection().kept
    assert content_hash(path)
