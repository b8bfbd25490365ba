"""Jobs of folders and tables: names, seeds, places, and what is refused before anything starts."""

from __future__ import annotations

import json

import pytest

from image_to_prompt.tests.workflows.many.conftest import GRAPH
from image_to_prompt.workflows.api_client.inputs import InputsError
from image_to_prompt.workflows.many import tables
from image_to_prompt.workflows.many.jobs import completed, from_folder, key_of, seed_of


def table(tmp_path, text: str, graph: dict = GRAPH):
    file = tmp_path / "jobs.csv"
    file.write_text(text)
    return completed(tables.from_table(file, graph), graph, (), {})


def test_a_seed_comes_from_the_name_alone_and_is_kept_by_the_page():
    assert seed_of("cat.png") == 5017309503672189, "results of earlier versions depend on it"
    assert len({seed_of(f"{number}.png") for number in range(2000)}) == 2000
    assert max(seed_of(str(number)) for number in range(2000)) < 2**53


def test_a_folder_gives_its_pictures_by_name_with_subfolders_and_without_hidden_ones(tmp_path):
    for name in ("b.png", "a.JPG", "sub/b.png", "notes.txt", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    jobs = completed(from_folder(tmp_path), GRAPH, ["snow"], {"steps": 3})
    assert [job.name for job in jobs] == ["a.JPG", "b.png", "sub/b.png"]
    assert [job.place for job in jobs] == ["a", "b", "sub/b"]
    assert [job.uploads for job in jobs] == [("a.JPG",), ("b.png",), ("sub-b.png",)]
    assert jobs[1].settings == {"seed": seed_of("b.png"), "steps": 3} and jobs[1].texts == ("snow",)


def test_pictures_that_differ_in_their_ending_only_keep_it(tmp_path):
    for name in ("a.png", "a.jpg", "B.png", "b.jpg", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    places = {job.name: job.place for job in completed(from_folder(tmp_path), GRAPH, (), {})}
    assert places["c.png"] == "c" and places["a.png"] == "a.png" and places["B.png"] == "B.png"
    assert len({place.casefold() for place in places.values()}) == 5


def test_names_lead_nowhere_else(tmp_path):
    jobs = table(tmp_path, "name,image\n../../etc/passwd,a.png\nC:\\x\\con,b.png\n/abs/c,c.png\n")
    assert [job.place for job in jobs] == ["etc/passwd", "C_/x/_con", "abs/c"]


def test_rows_set_what_their_columns_name(tmp_path):
    jobs = table(
        tmp_path,
        "image,text,seed,strength,3.steps,name\n"
        'cat.png,"in the snow, at night",7,0.5,4,first\n'
        "dog.png,,,,,\n",
    )
    assert jobs[0].name == "first" and jobs[0].texts == ("in the snow, at night",)
    assert jobs[0].settings == {"seed": 7, "strength": 0.5, "3.steps": 4}
    assert jobs[0].images == (tmp_path / "cat.png",)
    assert jobs[1].name == "dog.png" and jobs[1].settings == {"seed": seed_of("dog.png")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image,colour\na.png,red\n", "a column 'colour'; expected"),
        ("image,cfg\na.png,3\n", r"no value KSampler\.cfg"),
        ("image,image\na.png,b.png\n", "more than one column 'image'"),
        ("image\na.png\na.png\n", "'a.png' and 'a.png'"),
        ("image,image_2\na.png,b.png\n", "takes 1 pictures; got 2"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(text, told, tmp_path):
    with pytest.raises(InputsError, match=told):
        table(tmp_path, text)


def test_a_bad_cell_is_a_problem_of_its_row_only(tmp_path):
    jobs = table(tmp_path, "image,steps\na.png,many\nb.png,3\n,4\n")
    assert "row 1, steps" in jobs[0].problem and jobs[1].problem is None
    assert "neither a name nor an image" in jobs[2].problem


def test_the_key_sees_everything_that_decides_the_result(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    [job] = completed(from_folder(tmp_path), GRAPH, (), {})
    same = completed(from_folder(tmp_path), json.loads(json.dumps(GRAPH)), (), {})[0]
    assert key_of(GRAPH, job) == key_of(GRAPH, same)
    keys = {key_of(GRAPH, job)}
    keys.add(key_of(GRAPH, completed(from_folder(tmp_path), GRAPH, ("x",), {})[0]))
    keys.add(key_of(GRAPH, completed(from_folder(tmp_path), GRAPH, (), {"seed": 1})[0]))
    keys.add(key_of({**GRAPH, "4": {"class_type": "SaveImage", "inputs": {}}}, job))
    (tmp_path / "a.png").write_bytes(b"two")
    keys.add(key_of(GRAPH, job))
    assert len(keys) == 5


def test_parquet_rows_are_as_csv_rows(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": ["a.png", "b.png"], "seed": [7, None], "text": [None, "x"]}
    parquet.write_table(arrow.table(columns), tmp_path / "jobs.parquet")
    jobs = completed(tables.from_table(tmp_path / "jobs.parquet", GRAPH), GRAPH, (), {})
    assert [job.settings["seed"] for job in jobs] == [7, seed_of("b.png")]
    assert [job.texts for job in jobs] == [(), ("x",)]
