"""A CLIP file has 1.7 GB, its projections 5 MB: only these may be read into memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from image_to_prompt.tests.fixtures import builders

FILE_SIZE = 1_710_000_000
ALLOWED = 50e6

pytestmark = pytest.mark.slow

# Runs alone, since peak memory belongs to a process. Warmed up with a small file of the same kind.
PROBE = """
import resource, runpy, sys
runpy.run_path(sys.argv[1])  # registers the checkout as a package
import torch
from image_to_prompt.projection import content_hash, load_file
torch.set_num_threads(1)
content_hash(sys.argv[2]), load_file(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(content_hash(sys.argv[3]))
projection = load_file(sys.argv[3])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(projection.kept, (after - before) * 1024)
"""


def write_sparse_clip(path, size=FILE_SIZE):
    """A full-size CLIP file whose layers are one hole: it takes 6 MB of disk."""
    text = builders.text_projection(768).numpy().tobytes()
    visual = builders.visual_projection(768, 1024).numpy().tobytes()
    layers = (size - len(text) - len(visual)) // 4 * 4
    ends = [0, layers, layers + len(text), layers + len(text) + len(visual)]
    named = [
        ("text_model.encoder.layers.all", [layers // 4]),
        ("text_projection.weight", [768, 768]),
        ("visual_projection.weight", [768, 1024]),
    ]
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": ends[i : i + 2]}
            for i, (name, shape) in enumerate(named)
        }
    ).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(layers, os.SEEK_CUR)
        file.write(text + visual)
    return path


@pytest.fixture
def full_size(tmp_path):
    path = write_sparse_clip(tmp_path / "model.safetensors")
    assert path.stat().st_size > 1.7e9
    if path.stat().st_blocks * 512 > 100e6:
        path.unlink()
        pytest.skip("this file system keeps no sparse files; the file would take 1.7 GB")
    yield path
    path.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_a_full_size_clip_file_costs_at_most_50_mb(full_size, tmp_path):
    small = write_sparse_clip(tmp_path / "small.safetensors", size=8_000_000)
    arguments = [str(builders.ROOT / "workflows" / "checkout.py"), str(small), str(full_size)]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    kept, growth = done.stdout.split()[1:]
    assert int(kept) == 607
    unit = 1 / 1024 if sys.platform == "darwin" else 1  # ru_maxrss is in bytes there
    assert float(growth) * unit <= ALLOWED


def test_the_sparse_file_is_a_real_clip_file(tmp_path):
    from image_to_prompt.projection import read_clip_projections

    read = read_clip_projections(write_sparse_clip(tmp_path / "c.safetensors", size=8_000_000))
    assert torch.equal(read.text, builders.text_projection(768))
    assert torch.equal(read.visual, builders.visual_projection(768, 1024))
