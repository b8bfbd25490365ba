"""Prompt files: bit for bit, small, and refused where they are damaged or newer."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from image_to_prompt.projection import (
    ClipIdentity,
    ImageToPromptError,
    SlotPrompt,
    content_hash,
    load_prompt,
    save_projection,
    save_prompt,
    shared_slots,
)
from image_to_prompt.projection.storage.prompt_file import save_new_prompt
from image_to_prompt.tests.fixtures.builders import normal, small_projection

IDENTITY = ClipIdentity(768, 768, 1024, "a" * 64, "b" * 64)
PLAIN = SlotPrompt(normal(1, 768), torch.zeros(1, 77, dtype=torch.int64), IDENTITY)
SHARED = SlotPrompt(normal(3, 768), shared_slots([1, 2, 1]), IDENTITY, normal(768, seed=4), 0.5)


@pytest.mark.parametrize("prompt", [PLAIN, SHARED], ids=["plain", "shared"])
def test_a_prompt_comes_back_bit_for_bit(prompt, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(prompt, path)
    found = load_prompt(path)
    assert torch.equal(found.vectors, prompt.vectors) and torch.equal(found.slots, prompt.slots)
    assert found.encoder == IDENTITY and found.gap == prompt.gap
    assert (found.common is None) == (prompt.common is None)
    assert found.common is None or torch.equal(found.common, prompt.common)


def test_a_picture_alone_takes_about_4_kilobytes(tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(PLAIN, path)
    assert os.path.getsize(path) < 4300


def test_equal_prompts_give_equal_files_and_others_another_hash(tmp_path):
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for path, prompt in zip(paths, (PLAIN, PLAIN, SHARED), strict=True):
        save_prompt(prompt, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert content_hash(paths[0]) == content_hash(paths[1]) != content_hash(paths[2])


def test_a_new_file_never_replaces_one(tmp_path):
    for _ in range(2):
        save_new_prompt(PLAIN, tmp_path, ("a.safetensors", "b.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "projection.safetensors"
    save_projection(small_projection(), path)
    with pytest.raises(ImageToPromptError, match="another kind of file"):
        load_prompt(path)


def _changed(tmp_path, change):
    path = tmp_path / "prompt.safetensors"
    save_prompt(SHARED, path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


DAMAGE = {
    "no vectors": lambda t, m: t.pop("vectors"),
    "no slots": lambda t, m: t.pop("slots"),
    "no common": lambda t, m: t.pop("common"),
    "a tensor of no feature": lambda t, m: t.update(more=torch.ones(1)),
    "common not announced": lambda t, m: m.update(features="[]"),
    "NaN": lambda t, m: t["vectors"][1].fill_(float("nan")),
    "infinite common": lambda t, m: t["common"].fill_(float("inf")),
    "half numbers": lambda t, m: t.update(vectors=t["vectors"].half()),
    "other width": lambda t, m: t.update(vectors=t["vectors"][:, :5].contiguous()),
    "no rows": lambda t, m: t.update(vectors=t["vectors"][:0]),
    "0-d vectors": lambda t, m: t.update(vectors=torch.tensor(1.0)),
    "common of other width": lambda t, m: t.update(common=t["common"][:5].contiguous()),
    "slot beyond": lambda t, m: t["slots"].fill_(3),
    "slot below": lambda t, m: t["slots"].fill_(-1),
    "76 slots": lambda t, m: t.update(slots=t["slots"][:, 1:].contiguous()),
    "no prompts": lambda t, m: t.update(slots=t["slots"][:0]),
    "slots flat": lambda t, m: t.update(slots=t["slots"][0].clone()),
    "slots as floats": lambda t, m: t.update(slots=t["slots"].float()),
    "no gap": lambda t, m: m.pop("gap"),
    "gap true": lambda t, m: m.update(gap="true"),
    "gap 2": lambda t, m: m.update(gap="2"),
    "gap 0": lambda t, m: m.update(gap="0"),
    "gap NaN": lambda t, m: m.update(gap="NaN"),
    "gap no JSON": lambda t, m: m.update(gap="x"),
    "gap deep": lambda t, m: m.update(gap="[" * 9000),
    "gap long": lambda t, m: m.update(gap="1" * 20_000),
    "no encoder": lambda t, m: m.pop("encoder"),
    "encoder a list": lambda t, m: m.update(encoder="[]"),
    "encoder without widths": lambda t, m: m.update(encoder="{}"),
    "encoder width true": lambda t, m: m.update(
        encoder=json.dumps(json.loads(m["encoder"]) | {"text_width": True})
    ),
    "version 0": lambda t, m: m.update(format_version="0"),
    "version 2": lambda t, m: m.update(format_version="2"),
    "no version": lambda t, m: m.pop("format_version"),
    "unknown feature": lambda t, m: m.update(features='["common", "video"]'),
    "features numbers": lambda t, m: m.update(features="[1]"),
    "features a text": lambda t, m: m.update(features='"common"'),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_in_one_clear_error(name, tmp_path):
    path = _changed(tmp_path, DAMAGE[name])
    with pytest.raises(ImageToPromptError) as caught:
        load_prompt(path)
    assert "prompt" in str(caught.value) or "encoder" in str(caught.value), caught.value


@pytest.mark.parametrize("size", [0, 7, 8, 60, 600, 3000])
def test_a_cut_file_is_refused(size, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(PLAIN, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ImageToPromptError, match=r"prompt\.safetensors"):
        load_prompt(path)


def test_newer_files_are_told_from_damaged_ones(tmp_path):
    for name in ("version 2", "unknown feature"):
        with pytest.raises(ImageToPromptError, match="Update Image-to-Prompt"):
            load_prompt(_changed(tmp_path, DAMAGE[name]))
