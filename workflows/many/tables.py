"""Jobs from a table, CSV or Parquet: one row a job, columns named as the workflow's inputs.

    image, image_2, ...   pictures, beside the table or below the folder of pictures
    text, text_2, ...     for the nodes that make prompts of pictures
    name                  the job's name; the first picture's path without this column
    seed, steps, ...      settings of the runner, and any NODE.INPUT

An empty cell leaves the workflow's value. Nothing in a table is unpickled or evaluated.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from image_to_prompt.workflows.api_client.inputs import (
    SETTINGS,
    InputsError,
    parsed,
    with_inputs,
)

from .jobs import Job
from .missing import require

_NUMBERED = re.compile(r"(image|text)(?:_([1-9][0-9]*))?")
_WHOLE = ("seed", "steps", "width", "height")
_REAL = ("cfg", "text_weight", "strength")
_SCALARS = (str, int, float, bool)


def from_table(file: Path, graph: dict, pictures: Path | None = None) -> Iterator[Job]:
    """A job for each row. pictures: where relative paths start, the table's folder if None.

    A cell that cannot be used makes its job a job with a problem. Raises InputsError for a
    column that the workflow has no place for, or a file that is no table.
    """
    columns, rows = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file)
    _check_columns(file, columns, graph)
    folder = pictures or file.parent
    for number, row in enumerate(rows, start=1):
        yield _job(number, row, graph, folder)


def _csv(file: Path) -> tuple[list[str], Iterator[Mapping[str, object]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputsError(f"{file}: {error}") from error
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        return list(reader.fieldnames or ()), iter(list(reader))
    except csv.Error as error:
        raise InputsError(f"{file}, line {reader.line_num}: {error}") from error


def _parquet(file: Path) -> tuple[list[str], Iterator[Mapping[str, object]]]:
    parquet = require("pyarrow.parquet", "a Parquet table")
    try:
        opened = parquet.ParquetFile(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise InputsError(f"{file}: {error}") from error
    batches = opened.iter_batches(batch_size=1000)
    return list(opened.schema_arrow.names), (row for part in batches for row in part.to_pylist())


def _check_columns(file: Path, columns: list[str], graph: dict) -> None:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise InputsError(f"{file} has more than one column {repeated[0]!r}")
    for name in columns:
        if name == "name" or _NUMBERED.fullmatch(name):
            continue
        if name not in SETTINGS and "." not in name:
            known = ", ".join(("name", "image", "text", *SETTINGS, "NODE.INPUT"))
            raise InputsError(f"{file} has a column {name!r}; expected {known}")
        with_inputs(graph, settings={name: 0})  # says where there is no such place


def _job(number: int, row: Mapping[str, object], graph: dict, folder: Path) -> Job:
    images: list[str] = []
    texts: list[str] = []
    settings: dict[str, object] = {}
    problem = None
    for column in sorted((name for name in row if isinstance(name, str)), key=_order):
        value = row[column]
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        kind = _NUMBERED.fullmatch(column)
        if not isinstance(value, _SCALARS):
            problem = f"row {number}, {column}: expected a text or a number; got {value!r:.80}"
        elif kind is not None:
            (images if kind[1] == "image" else texts).append(str(value))
        elif column != "name":
            try:
                settings[column] = _value(column, value, graph)
            except ValueError as error:
                problem = f"row {number}, {column}: {error}"
    if None in row:
        problem = f"row {number} has more cells than the table has columns"
    name = str(row.get("name") or (images[0] if images else ""))
    if not name:
        name, problem = f"row {number}", f"row {number} has neither a name nor an image"
    uploads = tuple(_upload(image) for image in images)
    paths = tuple(folder / image for image in images)
    return Job(name, paths, uploads, tuple(texts), settings, problem=problem)


def _order(column: str) -> tuple[str, int]:
    kind = _NUMBERED.fullmatch(column)
    return (kind[1], int(kind[2] or 1)) if kind else (column, 0)


def _value(column: str, value: object, graph: dict) -> object:
    """A cell as the workflow takes it: a CSV file holds texts only."""
    if not isinstance(value, str):
        return value
    if column in _WHOLE:
        return int(value)
    if column in _REAL:
        return float(value)
    return value if column in SETTINGS else parsed(f"{column}={value}", graph)[1]


def _upload(image: str) -> str:
    """The name for the server: a relative path's folders are part of it, an absolute path's not."""
    path = Path(image)
    return path.name if path.is_absolute() else "-".join(p for p in path.parts if p != "..")
