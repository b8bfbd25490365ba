"""What the metadata of this package's files say: format version, features, values as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from typing import Any

from ..errors import ImageToPromptError
from .tensor_file import TensorFile

_MAX_TEXT = 10_000  # characters of one metadata value; the longest that is written has 300


def check_version(file: TensorFile, kind: str, version: int, known: Set[str]) -> list[str]:
    """The file's features.

    kind: how a message calls such a file. version, known: what this reader understands. Raises
    ImageToPromptError for a newer file, KeyError or ValueError for a damaged one.
    """
    text = file.metadata["format_version"]
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise ValueError(f"format_version {text}")
    features: list[str] = metadata_value(file.metadata, "features", list)
    if not all(isinstance(name, str) for name in features):
        raise ValueError("features that are no names")
    unknown = sorted(set(features) - known)
    if int(text) > version or unknown:
        got = f"{file.path.name} of version {text}"
        got += f" with {', '.join(unknown)}" if unknown else ""
        raise ImageToPromptError(
            f"a {kind} of version {version} or older", got, "Update Image-to-Prompt."
        )
    return features


def metadata_value(metadata: Mapping[str, str], key: str, *kinds: type) -> Any:
    """A metadata value of one of these JSON types. Raises KeyError or ValueError for any other."""
    text = metadata[key]
    value = json.loads(text) if len(text) <= _MAX_TEXT else None
    if type(value) not in kinds:  # not isinstance: true is no number
        raise ValueError(f"{key} {text}")
    return value


def as_metadata(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as metadata: texts as they are, everything else as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
