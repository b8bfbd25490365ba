"""The demonstration: its jobs, its grid, and its way without ComfyUI on small random weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from image_to_prompt.projection import Projection
from image_to_prompt.workflows import demo
from image_to_prompt.workflows.authoring import build, thumbnails
from image_to_prompt.workflows.demo_parts import demo_alone, demo_assets, grid, miniature
from image_to_prompt.workflows.demo_parts.demo_assets import Job, Reference

# isort: split
from image_to_prompt.tests.miniature.drawings import models
from image_to_prompt.tests.miniature.drawings.sampling import Miniature

SETTINGS = {"steps": 1, "text_weight": 1.0, "refine_steps": 1}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    for part in miniature.PARTS:
        models.save(miniature._random(part), part, folder, latent_std="1.0")
    return miniature.Weights(folder, miniature.PARTS)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    photographs = demo_assets.photographs(("rocket",), ("red",), folder)
    return miniature.world_pictures(folder)[:2] + photographs


def test_a_reference_gets_three_variations_its_edits_and_the_empty_prompt():
    jobs = demo.jobs_of(Reference("cat", None, ("red", "blue")))
    assert [job.label for job in jobs] == [
        "variation 1",
        "variation 2",
        "variation 3",
        "+ red",
        "+ blue",
        "empty prompt",
    ]
    assert [job.seed for job in jobs] == [1, 2, 3, 1, 1, 1]
    assert [job.strength for job in jobs] == [1, 1, 1, 1, 1, 0]
    assert not any(job.refined for job in jobs)


def test_rows_begin_with_the_reference_and_those_refined_come_last(tmp_path):
    cat, dog = (Reference(name, tmp_path, (), name == "cat") for name in ("cat", "dog"))
    rows = demo.make_rows([cat, dog], lambda r, job: tmp_path / f"{job.seed}{job.refined}.png")
    assert [row[0] for row in rows] == [("cat", tmp_path), ("dog", tmp_path), ("cat", tmp_path)]
    assert rows[0][3] == ("variation 3", tmp_path / "3False.png")
    assert rows[2][1:] == [
        (f"refined, variation {seed}", tmp_path / f"{seed}True.png") for seed in (1, 2, 3)
    ]


def test_without_a_host_every_cell_is_a_picture_and_the_same_noise_gives_the_same(
    untrained, references, tmp_path
):
    make = demo_alone.maker(untrained, tmp_path, SETTINGS)
    first, other = references[:2]

    def pixels(reference, text=None, strength=1.0, seed=1, refined=False):
        path = make(reference, Job("", seed, text, strength, refined))
        assert Image.open(path).size == (96, 96)
        return Image.open(path).tobytes()

    assert pixels(first) == pixels(first)
    assert pixels(first) != pixels(other)
    assert pixels(first) != pixels(first, seed=2)
    assert pixels(first) != pixels(first, text="a red picture")
    assert pixels(first) != pixels(first, refined=True)
    assert pixels(first) == pixels(first)  # the refined weights are not left behind
    assert pixels(first, strength=0.0) == pixels(other, strength=0.0)


def test_the_conditioning_without_a_host_is_the_projections(untrained, references):
    mini = Miniature.load(untrained.folder)
    projection = Projection.from_text_projection(mini.clip.text_projection.weight, norm=9.0)
    picture = miniature.from_file(references[0].path)
    with torch.no_grad():
        null = mini.states([""])[0]
        found = demo_alone.prompt(mini, projection, picture, "", 1.0, 0.6)
        expected = projection.apply(mini.image_embeds(picture))
    assert torch.equal(found[:, 0], null[:, 0])
    assert torch.equal(found[:, 1:], expected[:, None].expand(-1, 76, -1))
    assert torch.equal(demo_alone.prompt(mini, projection, picture, "", 0.0, 0.6), null)


def test_photographs_are_files_of_the_right_kind(references):
    picture = miniature.from_file(references[2].path)
    assert picture.shape[:2] == (1, 3) and min(picture.shape[2:]) > 224
    assert 0 <= picture.min() < picture.max() <= 1


def test_what_is_not_trained_is_said(untrained):
    assert "WITHOUT TRAINING (clip, taesd, unet)" in str(untrained)
    assert "trained on emoji" in str(miniature.Weights(untrained.folder, ()))


def test_the_grid_places_every_picture_in_its_cell(tmp_path):
    files = []
    for colour in ("red", "lime", "blue"):
        files.append(tmp_path / f"{colour}.png")
        Image.new("RGB", (64, 64), colour).save(files[-1])
    rows = [[("a", files[0]), ("b", files[1])], [None, ("a very long label " * 9, files[2])]]
    sheet = Image.open(grid.draw(rows, tmp_path / "out" / "grid.png", "title"))
    step = grid.CELL + grid.GAP

    def middle(row, column):
        top = grid.LABEL + grid.GAP + row * (step + grid.LABEL) + grid.LABEL
        return sheet.getpixel((grid.GAP + column * step + 96, top + 96))

    assert middle(0, 0) == (255, 0, 0)
    assert middle(0, 1) == (0, 255, 0)
    assert middle(1, 0) == (255, 255, 255)
    assert middle(1, 1) == (0, 0, 255)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--checkpoint", __file__], "belong together"),
        (["--checkpoint", "absent", "--clip", "absent"], "absent does not exist"),
        (["--checkpoint", __file__, "--clip", __file__, "--no-host"], "need a ComfyUI"),
    ],
)
def test_arguments_that_cannot_work_are_refused(line, message, capsys):
    with pytest.raises(SystemExit):
        demo.main(line)
    assert message in capsys.readouterr().err


def test_a_stated_host_that_is_none_is_said(tmp_path, capsys):
    assert demo.main(["--host", str(tmp_path)]) == 1
    assert "must hold main.py and comfy/" in capsys.readouterr().err


def test_a_thumbnail_shows_result_and_references_and_is_small(tmp_path):
    colours = ("red", "lime", "blue")
    files = [tmp_path / f"{colour}.png" for colour in colours]
    for colour, file in zip(colours, files, strict=True):
        Image.new("RGB", (64, 64), colour).save(file)
    path = thumbnails.compose(files[0], files[1:], tmp_path / "thumbnail.jpg")
    picture = Image.open(path)
    assert path.stat().st_size < thumbnails.LIMIT
    for place, colour in (((192, 96), 0), ((56, 328), 1), ((328, 328), 2)):
        assert picture.getpixel(place)[colour] > 200


def test_every_workflow_has_its_thumbnail_and_each_is_small():
    made = sorted(build.HERE.glob("*.jpg"))
    if not made:
        pytest.skip("no thumbnails are committed: python workflows/authoring thumbnails makes them")
    pages = [path.stem for path in build.files() if path.parent == Path(".")]
    assert [path.stem for path in made] == sorted(pages) and len(pages) == 15
    for path in made:
        assert path.stat().st_size < thumbnails.LIMIT
        assert Image.open(path).size == (thumbnails.SIDE, thumbnails.SIDE)
