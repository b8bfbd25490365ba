"""Prompt files of rows, one for each picture, as a node or `projection.load_prompt` reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from image_to_prompt.projection import ImageToPromptError, Projection, SlotPrompt, save_prompt
from image_to_prompt.projection.prompt.conditioning import CHUNK

SUFFIX = ".safetensors"


def write_prompts(
    rows: Iterable[tuple[str, list[float]]], projection: Projection, folder: Path
) -> int:
    """Write a prompt file for each row that has none in `folder` yet; how many were written.

    rows: names and prompt embeddings (D,) of pictures. The file of `trip/sea.jpg` is
    `trip/sea.jpg.safetensors`. A name that leads out of the folder is left out. Raises
    ImageToPromptError for a projection that is not for SD 1.x.
    """
    if projection.readings is not None:
        expected, got = "a projection for SD 1.x", f"one for {projection.encoder.name}"
        raise ImageToPromptError(expected, got, "Leave out --files for this one.")
    count, root = 0, folder.resolve()
    gap = 0.0 if projection.centred is None else projection.centred.gap
    slots = torch.zeros(1, CHUNK, dtype=torch.int64)
    for name, embedding in rows:
        path = root / (name + SUFFIX)
        if not path.resolve().is_relative_to(root) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = torch.tensor([embedding], dtype=torch.float32)
        prompt = SlotPrompt(vectors, slots, projection.encoder, projection.common, gap)
        save_prompt(prompt, path)
        count += 1
    return count
