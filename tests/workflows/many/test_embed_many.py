"""The command that embeds a folder: a random CLIPModel of transformers, and broken files."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
import torch
from PIL import Image

from image_to_prompt.projection import from_clip_model, load_prompt
from image_to_prompt.projection.integrations.transformers_clip import image_embeds
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.workflows import embed_many
from image_to_prompt.workflows.many.embedding import collect
from image_to_prompt.workflows.many.embedding.encoder import Choice
from image_to_prompt.workflows.many.embedding.prompt_files import write_prompts

WIDTH = 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a random CLIPModel whose text projection has the real spectrum."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config={"hidden_size": WIDTH, "vocab_size": 100, "projection_dim": WIDTH} | layers,
        vision_config={"hidden_size": 48, "image_size": 16, "patch_size": 8} | layers,
        projection_dim=WIDTH,
    )
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(builders.normal(*parameter.shape, seed=seed) * 0.2)
        model.text_projection.weight.copy_(builders.text_projection(WIDTH))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    size = {"shortest_edge": 16}
    transformers.CLIPImageProcessor(size=size, crop_size=16).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        value = int(20 * number)
        Image.new("RGB", (20 + number, 16), (value, 255 - value, 99)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "3.png").read_bytes()[:40])
    return folder


def line(clip, photos, tmp_path, *more: str) -> list[str]:
    own = ["--images", str(photos), "--clip", str(clip), "--out", str(tmp_path / "prompts")]
    return [*own, "--batch-size", "4", "--cpu", *more]


def read(tmp_path) -> dict[str, dict]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    files = sorted((tmp_path / "prompts").glob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    return {row["name"]: row for row in rows if row["error"] is None} | {
        row["name"]: row for row in rows if row["error"] is not None
    }


def test_without_the_extra_one_line_says_what_to_install(
    clip, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert embed_many.main(line(clip, photos, tmp_path)) == 1
    told = capsys.readouterr().err
    assert told.startswith("embedding a collection needs pyarrow, which is not installed: pip")
    assert told.count("\n") == 1


def test_rows_are_the_projections_and_broken_files_are_errors(clip, photos, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert embed_many.main(line(clip, photos, tmp_path)) == 1
    check(read(tmp_path), clip, photos)
    assert "2 broken" in capsys.readouterr().err


def check(rows, clip, photos):
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(clip)
    projection = from_clip_model(model)
    assert sorted(rows) == sorted(path.name for path in photos.iterdir())
    assert {name for name, row in rows.items() if row["error"]} == {"bad.png", "cut.png"}
    for name, row in rows.items():
        told = json.loads(row["settings"])
        assert told["text_projection"] == projection.encoder.text_projection
        if row["error"] is None:
            with Image.open(photos / name) as image:
                pixels = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
            wanted = projection.apply(image_embeds(model, pixels))[0]
            assert torch.allclose(torch.tensor(row["embedding"]).float(), wanted, atol=0.05), name


def test_the_same_command_again_embeds_what_is_missing_or_broken(clip, photos, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    embed_many.main(line(clip, photos, tmp_path))
    (photos / "new.png").write_bytes((photos / "1.png").read_bytes())
    (photos / "bad.png").write_bytes((photos / "2.png").read_bytes())
    capsys.readouterr()
    embed_many.main(line(clip, photos, tmp_path))
    assert "2 of 14 embedded" in capsys.readouterr().err
    assert len(list((tmp_path / "prompts").glob("*.parquet"))) == 2


def test_prompt_files_hold_the_rows_and_are_made_once(clip, photos, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    files = tmp_path / "models" / "prompts"
    embed_many.main(line(clip, photos, tmp_path))  # rows first, without files
    embed_many.main(line(clip, photos, tmp_path, "--files", str(files)))
    rows = {name: row for name, row in read(tmp_path).items() if row["error"] is None}
    assert {path.name for path in files.iterdir()} == {f"{name}.safetensors" for name in rows}
    for name, row in rows.items():
        prompt = load_prompt(files / f"{name}.safetensors")
        assert prompt.encoder.text_projection == json.loads(row["settings"])["text_projection"]
        assert torch.equal(prompt.vectors, torch.tensor([row["embedding"]]).float())
        assert not prompt.slots.any() and prompt.common is None
    capsys.readouterr()
    embed_many.main(line(clip, photos, tmp_path, "--files", str(files)))
    assert "0 prompt files written" in capsys.readouterr().err


def test_a_name_that_leads_out_of_the_folder_writes_nothing(tmp_path):
    row = [0.5] * 32
    projection = builders.small_projection()
    rows = [("../out.png", row), ("in/a.png", row)]
    assert write_prompts(rows, projection, tmp_path / "prompts") == 1
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture
def own_sigterm():
    """SIGTERM as a fresh process has it: a cluster in an earlier test leaves Ray's handler."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("own_sigterm")
def test_a_signal_keeps_what_is_embedded(sent, code, clip, photos, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    own = collect.here

    def stopped_after_two_batches(*arguments):
        for number, found in enumerate(own(*arguments)):
            if number == 2:
                signal.raise_signal(sent)
            yield found

    monkeypatch.setattr(collect, "here", stopped_after_two_batches)
    try:
        found = embed_many.main(line(clip, photos, tmp_path))
    except SystemExit as end:
        found = end.code
    assert found == code
    monkeypatch.undo()
    embed_many.main(line(clip, photos, tmp_path))
    assert "8 were done before" in capsys.readouterr().err


def test_files_that_are_read_ahead_give_the_same_rows(clip, photos):
    made = Choice(str(clip), None, 4, "cpu").make()
    files = [(path.name, path) for path in sorted(photos.iterdir())]
    files.insert(5, ("gone.png", photos / "gone.png"))
    plain, ahead = list(collect.here(files, made)), list(collect.here(files, made, ahead=2))
    assert len(plain) == len(ahead) == 4
    for one, other in zip(plain, ahead, strict=True):
        assert (one["embedding"] == other["embedding"]).all()
        assert (one["name"], one["error"]) == (other["name"], other["error"])
    assert dict(zip(plain[1]["name"], plain[1]["error"], strict=True))["gone.png"]


@pytest.mark.slow
def test_ray_data_gives_the_same_rows(clip, photos, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray.data", reason="ray is not installed: make cluster-test")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes its token there
    embed_many.main(line(clip, photos, tmp_path))
    alone = read(tmp_path)
    os.rename(tmp_path / "prompts", tmp_path / "alone")
    assert embed_many.main(line(clip, photos, tmp_path, "--engine", "ray")) == 1
    rows = read(tmp_path)
    check(rows, clip, photos)
    assert rows == alone, "bit for bit: batches have one size"
