"""Tiles of pictures and of the canvas."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.projection.regions.tiles import Grid


@pytest.mark.parametrize("grid", [Grid(2, 1), Grid(1, 2), Grid(2, 2), Grid(3, 3), Grid(1, 1)])
@pytest.mark.parametrize("feather", [0.0, 0.25, 1.0])
def test_masks_add_up_to_one_and_are_largest_at_home(grid, feather):
    masks = grid.masks(48, 96, feather)
    assert masks.shape == (len(grid), 48, 96)
    assert torch.allclose(masks.sum(dim=0), torch.ones(48, 96), atol=1e-6)
    assert masks.min() >= 0
    for number, mask in enumerate(masks):
        row, column = divmod(number, grid.columns)
        y = int((row + 0.5) * 48 / grid.rows)
        x = int((column + 0.5) * 96 / grid.columns)
        assert mask[y, x] > 0.95


def test_a_feather_fades_over_its_share_of_a_tile():
    left, right = Grid(2, 1).masks(1, 80, 0.25)[:, 0]
    assert (left[:35] == 1).all() and (left[45:] == 0).all()  # a quarter of 40 pixels
    assert (left[35:45] > 0).all() and (left.diff() <= 0).all()
    assert torch.allclose(left, right.flip(0), atol=1e-6)


def test_cut_tiles_are_the_picture_again():
    pictures = torch.rand(2, 7, 10, 3)
    tiles = Grid(3, 2).cut(pictures)
    assert len(tiles) == 6
    rows = [torch.cat(tiles[start : start + 3], dim=2) for start in (0, 3)]
    assert torch.equal(torch.cat(rows, dim=1), pictures)


@pytest.mark.parametrize(
    "height, width, columns, rows",
    [
        *((512, 512, 2, 2), (512, 640, 2, 2), (512, 768, 2, 1), (512, 1536, 3, 1)),
        *((900, 300, 1, 3), (10, 1000, 8, 1)),
    ],
)
def test_the_aspect_gives_squares_along_the_longer_side(height, width, columns, rows):
    assert Grid.by_aspect(height, width) == Grid(columns, rows)


def test_tiles_share_the_slots_of_a_picture_in_order():
    prompts = [torch.full((2, 9, 3), float(number)) for number in range(3)]
    slots = torch.tensor([False, False] + [True] * 7)
    for prompt in prompts:
        prompt[:, :2] = -1  # start state and words are the same in all
    shared = Grid(3, 1).share_slots(prompts, slots)
    assert shared.shape == (2, 9, 3)
    assert shared[1, :, 0].tolist() == [-1, -1, 0, 0, 0, 1, 1, 2, 2]


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(ImageToPromptError, match="at least 3x3 pixels"):
        Grid(3, 3).cut(torch.rand(1, 2, 5, 3))
    with pytest.raises(ImageToPromptError, match="1 to 8 columns"):
        Grid(9, 1)
