"""Lists on ImageToPromptEmbed, through the host's own mapping over lists."""

# ruff: noqa: F811  fixtures of another module
from __future__ import annotations

import asyncio

import pytest
import torch

from image_to_prompt.tests.host.test_published_arithmetic import (  # noqa: F401  fixtures
    models,
    pictures,
    projection,
    run,
)


def mapped(host, projection, models, image, **changes):
    """The node's outputs for lists of inputs, through the host's own mapping."""
    import execution

    inputs = {
        "projection": projection,
        "clip": models[1],
        "clip_vision": models[2],
        "image": image,
        "text": "",
        "text_weight": 0.6,
        "strength": 1.0,
        "images": "one prompt per image",
        "crop": "center",
        **changes,
    }
    lists = {name: v if isinstance(v, list) else [v] for name, v in inputs.items()}
    node = host.classes["ImageToPromptEmbed"]
    with torch.inference_mode():
        results = execution.get_output_data("prompt", "1", node, lists)
        results = asyncio.run(results) if asyncio.iscoroutine(results) else results
    ((conditionings), *_), *_ = results
    return conditionings


def same(one, other):
    return torch.equal(one[0][0], other[0][0]) and torch.equal(
        one[0][1]["pooled_output"], other[0][1]["pooled_output"]
    )


def sizes_of(pictures):
    """The same pictures cut to different sizes."""
    return [p[None, : 224 - 32 * n, : 200 + 8 * n] for n, p in enumerate(pictures)]


@pytest.mark.parametrize("lists", ["pictures", "texts too", "more texts", "strengths only"])
def test_a_list_with_one_prompt_per_image_gives_what_single_runs_give(
    host, models, projection, pictures, lists
):
    images, given = sizes_of(pictures), {"text": "a dog"}
    if lists == "texts too":
        given = {"text": ["a dog", "snow"], "text_weight": [0.6, 0.3, 1.0]}
    if lists == "more texts":
        given = {"text": ["a", "b", "c", "d"], "image_weights": ["", "2"]}
    if lists == "strengths only":
        images, given = images[:1], {"strength": [0.0, 0.5, 1.0, 2.0]}
    found = mapped(host, projection, models, images, **given)
    count = max([len(images), *(len(v) for v in given.values() if isinstance(v, list))])
    assert len(found) == count
    for index, conditioning in enumerate(found):
        single = {
            name: v[min(index, len(v) - 1)] if isinstance(v, list) else v
            for name, v in given.items()
        }
        image = images[min(index, len(images) - 1)]
        assert same(conditioning, run(host, projection, models, image, **single))


def test_a_batch_gives_one_conditioning_as_ever(host, models, projection, pictures):
    for images in ("one prompt per image", "one prompt from all"):
        (found,) = mapped(host, projection, models, pictures, images=images)
        assert same(found, run(host, projection, models, pictures, images=images))


def test_one_prompt_from_all_takes_a_whole_list_of_any_sizes(host, models, projection, pictures):
    everything = {"images": "one prompt from all", "image_weights": "1, 2, 3"}
    batch = run(host, projection, models, pictures, **everything)
    (found,) = mapped(host, projection, models, list(pictures.split(1)), **everything)
    assert same(found, batch)
    (found,) = mapped(host, projection, models, [pictures[:2], pictures[2:]], **everything)
    assert same(found, batch)
    (mixed,) = mapped(host, projection, models, sizes_of(pictures), **everything)
    assert mixed[0][0].shape == batch[0][0].shape


def test_one_prompt_from_all_of_a_list_is_made_for_each_text(host, models, projection, pictures):
    texts = ["a dog", "snow"]
    found = mapped(
        host,
        projection,
        models,
        list(pictures.split(1)),
        text=texts,
        images="one prompt from all",
    )
    assert len(found) == 2
    for conditioning, text in zip(found, texts, strict=True):
        expected = run(host, projection, models, pictures, text, images="one prompt from all")
        assert same(conditioning, expected)


def test_a_list_of_no_pictures_is_refused(host, models, projection):
    from image_to_prompt.projection import ImageToPromptError

    with pytest.raises(ImageToPromptError, match="at least one image"):
        mapped(host, projection, models, [])
