"""A family's readings as named tensors and numbers, for a projection's file.

The tensors are `readings.<reading>.<field>`, `readings.centre` and `readings.direction`. Matrices
are float16, which holds them exactly, see `Reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ...errors import ImageToPromptError
from ...families.family import Family, Part
from ...families.reading import NUMBERS, TENSORS, Reading
from ...families.readings import Readings

READINGS = "readings"
_VECTORS = ("centre", "direction")
_COUNTS = ("layer", "captions", "pictures")


def tensors_of(readings: Readings) -> dict[str, Tensor]:
    """Every tensor of the readings under its name in files."""
    found = {f"{READINGS}.{name}": getattr(readings, name) for name in _VECTORS}
    for name, reading in readings.readings.items():
        found |= {f"{READINGS}.{name}.{field}": getattr(reading, field) for field in TENSORS}
        found[f"{READINGS}.{name}.matrix"] = reading.matrix.half()
    return found


def numbers_of(readings: Readings) -> dict[str, Any]:
    """Everything else about the readings, as JSON holds it."""
    return {
        "family": asdict(readings.family),
        "scores": {
            name: [getattr(reading, field) for field in NUMBERS]
            for name, reading in readings.readings.items()
        },
        **{name: getattr(readings, name) for name in _COUNTS},
    }


def readings_of(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Readings:
    """The inverse of both. Raises KeyError, TypeError or ValueError for what is damaged."""
    found, scores = family_of(numbers["family"]), numbers["scores"]
    each = {name: _reading(name, scores[name], tensors) for name in found.reading_names}
    others: dict[str, Any] = {name: numbers[name] for name in _COUNTS}
    others |= {name: tensors[f"{READINGS}.{name}"] for name in _VECTORS}
    return Readings(family=found, readings=each, **others)


def family_of(numbers: Mapping[str, Any]) -> Family:
    """A family from what `asdict` makes of it. Raises KeyError, TypeError or ValueError."""
    others = dict(numbers)
    try:
        return Family(parts=tuple(Part(**part) for part in others.pop("parts")), **others)
    except ImageToPromptError as error:
        raise ValueError(f"family {error.got}") from error


def _reading(name: str, scores: Any, tensors: Mapping[str, Tensor]) -> Reading:
    if len(scores) != len(NUMBERS) or any(type(score) not in (float, int) for score in scores):
        raise ValueError(f"{READINGS} {name}")
    parts: dict[str, Any] = {field: tensors[f"{READINGS}.{name}.{field}"] for field in TENSORS}
    parts["matrix"] = parts["matrix"].float()
    return Reading(**parts | dict(zip(NUMBERS, map(float, scores), strict=True)))
