"""Rows in a folder of Parquet files, each written whole; names that are there are not redone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..missing import require


class Rows:
    """Parquet files `part-00000.parquet`, ... in a folder: name, embedding, error, and constants.

    constants: columns that are alike in all rows. Raises MissingError without pyarrow.
    """

    def __init__(self, folder: Path, constants: Mapping[str, str]) -> None:
        self._arrow = require("pyarrow", "writing Parquet")
        self._parquet = require("pyarrow.parquet", "writing Parquet")
        self._folder, self._constants = folder, constants
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        """Names of the rows that are there without an error, with these constants."""
        return {row["name"] for row in self._good()}

    def embeddings(self) -> Iterator[tuple[str, list[float]]]:
        """Names and prompt embeddings of those rows, file by file."""
        for row in self._good("embedding"):
            yield row["name"], row["embedding"]

    def _good(self, *more: str) -> Iterator[dict[str, Any]]:
        columns = ["name", "error", *self._constants, *more]
        for file in sorted(self._folder.glob("part-*.parquet")):
            for row in self._parquet.read_table(file, columns=columns).to_pylist():
                same = all(row[key] == value for key, value in self._constants.items())
                if same and row["error"] is None:
                    yield row

    def table(self, rows: Mapping[str, Any]) -> Any:
        """Rows of an embedder as an Arrow table: embeddings are lists of float16."""
        arrow, count = self._arrow, len(rows["name"])
        flat = arrow.array(rows["embedding"].reshape(-1), arrow.float16())
        width = rows["embedding"].shape[1]
        columns = {
            "name": arrow.array(list(rows["name"]), arrow.string()),
            "embedding": arrow.FixedSizeListArray.from_arrays(flat, width),
            "error": arrow.array([error or None for error in rows["error"]], arrow.string()),
        }
        for key, value in self._constants.items():
            columns[key] = arrow.array([value] * count, arrow.string())
        return arrow.table(columns)

    def write(self, tables: list[Any]) -> Path:
        """A new file with these tables; no file is replaced, and none is ever half written."""
        whole = self._arrow.concat_tables(tables)
        part = self._folder / f".writing-{os.getpid()}"
        with part.open("wb") as file:
            self._parquet.write_table(whole, file)
            file.flush()
            os.fsync(file.fileno())
        number = 0
        while True:
            path = self._folder / f"part-{number:05}.parquet"
            try:
                os.link(part, path)
            except FileExistsError:
                number += 1
            else:
                part.unlink()
                return path
