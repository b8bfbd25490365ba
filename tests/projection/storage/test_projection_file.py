"""Projections as files: the same bits back, whole or not at all, readable for ever."""

from __future__ import annotations

import json
import os
from dataclasses import fields

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_tensors

from image_to_prompt.projection import (
    ImageToPromptError,
    Projection,
    content_hash,
    is_projection,
    load_file,
    load_projection,
    save_projection,
)
from image_to_prompt.projection.storage import projection_file, whole_file
from image_to_prompt.projection.storage.tensor_file import encode
from image_to_prompt.tests.fixtures import builders

EMBEDS = builders.normal(4, 32, seed=9)


def variants():
    plain = builders.small_projection()
    weight = builders.text_projection(32)
    ridge = Projection.from_text_projection(weight, method="ridge", cutoff=1 / 3, norm=28.9096)
    return {
        "plain": plain,
        "bias": builders.with_bias(plain),
        "ridge, text half only": ridge,
        "not square": Projection(
            builders.normal(5, 7),
            torch.tensor([1.0, 0.1 + 0.2]),
            type(plain.encoder)(5, 7, None, "text"),
            "a method to come",
            1e-300,
            1,
            27.5 + 1e-12,
        ),
    }


@pytest.fixture(params=sorted(variants()))
def projection(request):
    return variants()[request.param]


@pytest.fixture
def saved(projection, tmp_path):
    path = tmp_path / "p.safetensors"
    save_projection(projection, path)
    return path


def assert_same(one: Projection, other: Projection) -> None:
    for field in fields(Projection):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b), field.name
        else:
            assert (type(a), a) == (type(b), b), field.name


def test_a_loaded_projection_is_the_saved_one_bit_for_bit(projection, saved):
    assert_same(load_projection(saved), projection)
    assert_same(load_file(saved, method="transpose", cutoff=5.0), projection)


def test_a_loaded_projection_gives_the_same_prompts_bit_for_bit(projection, saved):
    embeds = builders.normal(3, projection.encoder.joint_width, seed=1)
    assert torch.equal(load_projection(saved).apply(embeds), projection.apply(embeds))


def test_saving_twice_changes_nothing(projection, saved, tmp_path):
    again = tmp_path / "again.safetensors"
    save_projection(load_projection(saved), again)
    assert_same(load_projection(again), projection)
    assert load_tensors(saved).keys() == load_tensors(again).keys()


def test_the_path_may_be_a_string(projection, tmp_path):
    save_projection(projection, str(tmp_path / "p.safetensors"))
    assert_same(load_projection(str(tmp_path / "p.safetensors")), projection)


def test_the_metadata_says_what_the_file_is_in_strings(projection, saved):
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    assert is_projection(metadata)
    assert metadata["format"] == "image-to-prompt projection"
    assert metadata["format_version"] == "1"
    assert metadata["method"] == projection.method
    assert json.loads(metadata["kept"]) == projection.kept
    assert json.loads(metadata["cutoff"]) == projection.cutoff
    assert json.loads(metadata["norm"]) == projection.norm
    assert json.loads(metadata["features"]) == (["bias"] if projection.bias is not None else [])
    assert json.loads(metadata["encoder"])["text_width"] == projection.encoder.text_width


def test_loaded_tensors_outlive_the_file(projection, saved):
    loaded = load_projection(saved)
    saved.write_bytes(b"\xff" * saved.stat().st_size)
    assert_same(loaded, projection)


class Stop(Exception):
    """Anything that ends a write early."""


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(saved, projection, monkeypatch):
    before = saved.read_bytes()

    def half(tensors, metadata):
        yield before[: len(before) // 2]
        raise Stop

    monkeypatch.setattr(projection_file, "encode", half)
    with pytest.raises(Stop):
        save_projection(projection, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_rename_that_fails_leaves_the_old_file_and_nothing_else(saved, projection, monkeypatch):
    before = saved.read_bytes()

    def refused(source, target):
        raise Stop

    monkeypatch.setattr(whole_file.os, "replace", refused)
    with pytest.raises(Stop):
        save_projection(projection, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_at_no_moment_is_there_half_a_file_of_the_final_name(projection, tmp_path, monkeypatch):
    seen = []

    def watched(tensors, metadata):
        for chunk in encode(tensors, metadata):
            yield chunk
            seen.extend(path.suffix for path in tmp_path.iterdir())

    monkeypatch.setattr(projection_file, "encode", watched)
    save_projection(projection, tmp_path / "p.safetensors")
    assert set(seen) == {".part"}
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_others_may_read_a_saved_file_as_any_other(tmp_path):
    save_projection(variants()["plain"], tmp_path / "p.safetensors")
    (tmp_path / "ordinary").write_bytes(b"")
    modes = [(tmp_path / name).stat().st_mode for name in ("p.safetensors", "ordinary")]
    assert modes[0] == modes[1]


def test_saving_again_replaces_the_file(tmp_path):
    first, second = variants()["plain"], variants()["bias"]
    save_projection(first, tmp_path / "p.safetensors")
    save_projection(second, tmp_path / "p.safetensors")
    assert_same(load_projection(tmp_path / "p.safetensors"), second)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "p.safetensors"
    save_projection(variants()["plain"], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ImageToPromptError, match=r"p\.safetensors"):
        load_projection(path)
    with pytest.raises(ImageToPromptError, match=r"p\.safetensors"):
        load_file(path)


def test_other_kinds_of_safetensors_are_not_projections(tmp_path):
    path = builders.write(tmp_path / "clip.safetensors", builders.transformers_clip())
    with pytest.raises(ImageToPromptError, match="another kind of file"):
        load_projection(path)
    assert not is_projection(None)
    assert not is_projection({"format": "pt"})


# --- files of earlier versions ----------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-plain"])
def test_a_file_of_format_version_1_still_gives_the_same_prompts(suffix):
    projection = load_file(builders.FIXTURES / f"projection-v1{suffix}.safetensors")
    expected = load_tensors(builders.FIXTURES / "projection-v1-expected.safetensors")
    wanted = expected[f"prompt_embeddings{suffix.replace('-', '_')}"]
    got = projection.apply(expected["image_embeds"])
    assert torch.allclose(got, wanted, rtol=0, atol=27.5e-6)


def test_a_file_of_format_version_1_still_says_what_it_said():
    projection = load_projection(builders.FIXTURES / "projection-v1.safetensors")
    assert repr(projection).endswith("width 16, pseudo-inverse, kept 12 of 16)")
    encoder = projection.encoder
    assert (encoder.text_width, encoder.joint_width, encoder.vision_width) == (16, 16, 12)
    assert encoder.text_projection.startswith("32a95a42101beb4f")
    assert projection.norm == 27.5
    assert projection.cutoff == pytest.approx(0.29988861066422556)
    assert projection.bias is not None


# --- content hashes ---------------------------------------------------------------------------


def test_a_content_hash_follows_the_projections_and_not_the_rest_of_the_file(tmp_path):
    tensors = builders.transformers_clip()

    def hash_of(name, changes):
        return content_hash(builders.write(tmp_path / name, {**tensors, **changes}))

    first = hash_of("a.safetensors", {})
    assert hash_of("b.safetensors", {"logit_scale": torch.tensor(1.0)}) == first
    assert hash_of("c.safetensors", {"text_model.more": torch.ones(9)}) == first
    for key in ("text_projection.weight", "visual_projection.weight"):
        changed = tensors[key].clone()
        changed[0, 0] += 1e-3
        assert hash_of("d.safetensors", {key: changed}) != first
        assert hash_of("e.safetensors", {key: tensors[key].half()}) != first


def test_a_content_hash_follows_everything_in_a_saved_projection(tmp_path):
    hashes = set()
    for name, projection in variants().items():
        save_projection(projection, tmp_path / f"{name}.safetensors")
        hashes.add(content_hash(tmp_path / f"{name}.safetensors"))
    assert len(hashes) == len(variants())


def test_a_content_hash_of_what_is_no_file_is_an_error(tmp_path):
    with pytest.raises(ImageToPromptError, match=r"none\.safetensors"):
        content_hash(tmp_path / "none.safetensors")
