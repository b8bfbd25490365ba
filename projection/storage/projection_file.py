"""Projections as safetensors files with metadata: saved and loaded bit for bit.

A file holds the tensors of a `Projection` and, as metadata, everything else as JSON strings.
`features` names what a reader must understand to use the file: "bias", and the parts that fitting
and refining add. A later version adds features and tensors, and an older reader refuses them by
name instead of giving wrong prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..closed_form.centred import NUMBERS, TENSORS, Centred
from ..closed_form.clip_identity import ClipIdentity
from ..errors import ImageToPromptError
from ..families.readings import Readings
from ..projector import Projection
from ..state_dict import CROSS, RESIDUAL, VISION, adapter_state_dict, features_of, with_adapters
from .families.readings import READINGS, numbers_of, readings_of, tensors_of
from .metadata import as_metadata, check_version, metadata_value
from .tensor_file import TensorFile, encode
from .whole_file import create_file, replace_file

FORMAT = "image-to-prompt projection"
VERSION = 1
CENTRED = "centred"
_JOINT = "residual of image embeddings"  # a residual that readers without `corrected` would skip
_FEATURES: frozenset[str] = frozenset({"bias", RESIDUAL, VISION, CROSS, CENTRED, READINGS, _JOINT})
_REMAKE = "Save the projection again."


def save_projection(projection: Projection, path: str | Path) -> None:
    """Write a projection to `path`, whole or not at all: an interrupt leaves no half file."""
    write_tensors(path, _tensors(projection), _metadata(projection))


def save_new_projection(projection: Projection, folder: str | Path, names: Iterable[str]) -> Path:
    """As `save_projection`, under the first of `names` that `folder` does not hold: its path.

    Never replaces a file. Raises FileExistsError where every name is taken.
    """
    return create_file(folder, names, encode(_tensors(projection), _metadata(projection)))


def write_tensors(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    replace_file(path, encode(tensors, facts))


def write_new_tensors(
    folder: str | Path, names: Iterable[str], tensors: dict[str, Tensor], facts: dict[str, str]
) -> Path:
    """As `write_tensors`, under the first of `names` that `folder` does not hold: its path."""
    return create_file(folder, names, encode(tensors, facts))


def load_projection(path: str | Path) -> Projection:
    """Read a projection saved by `save_projection`.

    Raises ImageToPromptError for another kind of file, a newer version, or a damaged one.
    """
    file = TensorFile.open(path)
    _check_format(file)
    try:
        features = check_version(file, "projection file", VERSION, _FEATURES)
        return _projection(file.metadata, file.read_all(), features)
    except ImageToPromptError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ImageToPromptError(
            "a whole projection file",
            f"{Path(path).name} without or with bad {error}",
            _REMAKE,
            "saved projection",
        ) from error


def is_projection(metadata: Mapping[str, str] | None) -> bool:
    """Whether safetensors metadata is that of a saved projection."""
    return (metadata or {}).get("format") == FORMAT


def _tensors(projection: Projection) -> dict[str, Tensor]:
    tensors = {"matrix": projection.matrix, "singular_values": projection.singular_values}
    if projection.bias is not None:
        tensors["bias"] = projection.bias
    if (centred := projection.centred) is not None:
        tensors |= {f"{CENTRED}.{name}": getattr(centred, name) for name in TENSORS}
    if projection.readings is not None:
        tensors["matrix"] = _halved(projection.matrix)
        tensors |= tensors_of(projection.readings)
    return tensors | adapter_state_dict(projection)


def _features(projection: Projection) -> list[str]:
    own = {
        "bias": projection.bias,
        CENTRED: projection.centred,
        READINGS: projection.readings,
        _JOINT: projection.readings and projection.residual,
    }
    return [name for name, part in own.items() if part is not None] + features_of(projection)


def _metadata(projection: Projection) -> dict[str, str]:
    values = {
        "format": FORMAT,
        "format_version": VERSION,
        "features": _features(projection),
        "encoder": asdict(projection.encoder),
        "method": projection.method,
        "cutoff": projection.cutoff,
        "kept": projection.kept,
        "norm": projection.norm,
    }
    if (centred := projection.centred) is not None:
        values[CENTRED] = {name: getattr(centred, name) for name in NUMBERS}
    if projection.readings is not None:
        values[READINGS] = numbers_of(projection.readings)
    return as_metadata(values)


def _check_format(file: TensorFile) -> None:
    if not is_projection(file.metadata):
        raise ImageToPromptError(
            "a projection file",
            f"{file.path.name}, which is another kind of file",
            "Read a file that save_projection wrote; read a CLIP file by read_clip_projections.",
            "wrong file",
        )


def _projection(
    metadata: Mapping[str, str], tensors: dict[str, Tensor], features: list[str]
) -> Projection:
    projection = Projection(
        matrix=tensors["matrix"].float() if READINGS in metadata else tensors["matrix"],
        singular_values=tensors["singular_values"],
        encoder=ClipIdentity(**metadata_value(metadata, "encoder", dict)),
        method=metadata["method"],
        cutoff=float(metadata_value(metadata, "cutoff", float, int)),
        kept=metadata_value(metadata, "kept", int),
        norm=float(metadata_value(metadata, "norm", float, int)),
        bias=tensors.get("bias"),
        centred=_centred(metadata, tensors) if CENTRED in metadata else None,
        readings=_readings(metadata, tensors) if READINGS in metadata else None,
    )
    if READINGS in features and _JOINT not in features:
        # Files from before `corrected` could name one, and it had no effect.
        tensors = {name: t for name, t in tensors.items() if not name.startswith(f"{RESIDUAL}.")}
        features = [name for name in features if name != RESIDUAL]
    loaded = with_adapters(projection, tensors)
    # What is announced must be there, and nothing else: leaving out a part, or using one that a
    # reader was not told of, would give other prompts without a word.
    if wrong := set(features) ^ set(_features(loaded)):
        raise ValueError(f"{', '.join(sorted(wrong))}, announced or there but not both")
    if unknown := tensors.keys() - _tensors(loaded).keys():
        raise ValueError(f"tensors {', '.join(sorted(unknown)[:3])} that belong to no feature")
    return loaded


def _centred(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Centred:
    numbers = metadata_value(metadata, CENTRED, dict)
    if any(type(numbers[name]) not in (float, int) for name in NUMBERS):
        raise ValueError(f"{CENTRED} {numbers}")
    parts: dict[str, Any] = {name: tensors[f"{CENTRED}.{name}"] for name in TENSORS}
    return Centred(**parts | {name: float(numbers[name]) for name in NUMBERS})


def _readings(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Readings:
    return readings_of(metadata_value(metadata, READINGS, dict), tensors)


def _halved(matrix: Tensor) -> Tensor:
    """The matrix as float16 where that holds the same numbers, as `with_readings` makes it."""
    half = matrix.half()
    return half if half.float().equal(matrix) else matrix
