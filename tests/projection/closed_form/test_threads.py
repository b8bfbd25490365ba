"""The closed form has the same bits for any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from image_to_prompt.projection import Projection, decompose
from image_to_prompt.tests.fixtures import builders

CODE = """
import hashlib, runpy, sys
import torch
runpy.run_path(sys.argv[1])
from image_to_prompt.projection import METHODS, load_file
for method in METHODS:
    print(hashlib.sha256(load_file(sys.argv[2], method).matrix.numpy().tobytes()).hexdigest())
print(torch.get_num_threads())
"""


def results(path, threads: int) -> list[str]:
    command = [sys.executable, "-c", CODE, builders.ROOT / "workflows" / "checkout.py", path]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_one_and_two_threads_give_the_same_bits(tmp_path):
    # Of this matrix, one and two threads round some entries of the inverse differently.
    path = builders.write(tmp_path / "clip.safetensors", builders.transformers_clip(768))
    *one, threads_of_one = results(path, 1)
    *two, threads_of_two = results(path, 2)
    assert (threads_of_one, threads_of_two) == ("1", "2")
    assert len(set(one)) == 3
    assert one == two


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_is_left_as_it_was(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        Projection.from_text_projection(builders.text_projection())
        assert torch.get_num_threads() == threads
        with pytest.raises(RuntimeError):
            decompose(torch.zeros(3))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
