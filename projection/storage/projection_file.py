"""Projections as safetensors files with metadata: saved and loaded bit for bit.

A file holds the tensors of a `Projection` and, as metadata, everything else as JSON strings.
`features` names what a reader must understand to use the file: "bias", and the parts that fitting
and refining add. A later version adds features and tensors, and an older reader refuses them by
name instead of giving wrong prompts.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..closed_form.centred import NUMBERS, TENSORS, Centred
from ..closed_form.clip_identity import ClipIdentity
from ..errors import ImageToPromptError
from ..projector import Projection
from ..state_dict import CROSS, RESIDUAL, VISION, adapter_state_dict, features_of, with_adapters

FORMAT = "image-to-prompt projection"
VERSION = 1
CENTRED = "centred"
_FEATURES: frozenset[str] = frozenset({"bias", RESIDUAL, VISION, CROSS, CENTRED})
_REMAKE = "Save the projection again."


def save_projection(projection: Projection, path: str | Path) -> None:
    """Write a projection to `path`, whole or not at all: an interrupt leaves no half file."""
    tensors = {"matrix": projection.matrix, "singular_values": projection.singular_values}
    if projection.bias is not None:
        tensors["bias"] = projection.bias
    tensors |= adapter_state_dict(projection)
    if (centred := projection.centred) is not None:
        tensors |= {f"{CENTRED}.{name}": getattr(centred, name) for name in TENSORS}
    write_tensors(path, tensors, _metadata(projection))


def write_tensors(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    path = Path(path)
    content = save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, facts)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        # Not save_file or tempfile: theirs would be readable by this user only.
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_projection(path: str | Path) -> Projection:
    """Read a projection saved by `save_projection`.

    Raises ImageToPromptError for another kind of file, a newer version, or a damaged one.
    """
    metadata, tensors = _read(path)
    _check_header(metadata, path)
    try:
        return _projection(metadata, tensors)
    except ImageToPromptError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ImageToPromptError(
            "a whole projection file",
            f"{Path(path).name} without or with bad {error}",
            _REMAKE,
            "saved projection",
        ) from error


def is_projection(metadata: Mapping[str, str] | None) -> bool:
    """Whether safetensors metadata is that of a saved projection."""
    return (metadata or {}).get("format") == FORMAT


def _metadata(projection: Projection) -> dict[str, str]:
    values = {
        "format": FORMAT,
        "format_version": VERSION,
        "features": ["bias"] * (projection.bias is not None) + features_of(projection),
        "encoder": asdict(projection.encoder),
        "method": projection.method,
        "cutoff": projection.cutoff,
        "kept": projection.kept,
        "norm": projection.norm,
    }
    if (centred := projection.centred) is not None:
        values["features"] = [*values["features"], CENTRED]
        values[CENTRED] = {name: getattr(centred, name) for name in NUMBERS}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            # Clones: what safe_open gives may be a view of the mapped file.
            wanted = file.keys() if is_projection(metadata) else ()
            return metadata, {key: file.get_tensor(key).clone() for key in wanted}
    except (SafetensorError, OSError) as error:
        raise ImageToPromptError(
            "a safetensors file", f"{Path(path).name}: {error}", "Get or save the file again."
        ) from error


def _check_header(metadata: dict[str, str], path: str | Path) -> None:
    name = Path(path).name
    if not is_projection(metadata):
        raise ImageToPromptError(
            "a projection file",
            f"{name}, which is another kind of file",
            "Read a file that save_projection wrote; read a CLIP file by read_clip_projections.",
            "wrong file",
        )
    try:
        version = int(metadata["format_version"])
        unknown = sorted(set(json.loads(metadata["features"])) - _FEATURES)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageToPromptError(
            "a whole projection file", f"{name}: {error}", _REMAKE, "saved projection"
        ) from error
    if version > VERSION or unknown:
        got = f"{name} of version {version}" + (f" with {', '.join(unknown)}" if unknown else "")
        raise ImageToPromptError(
            f"a projection file of version {VERSION} or older", got, "Update Image-to-Prompt."
        )


def _projection(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Projection:
    # What is announced must be there: leaving it out would give other prompts without a word.
    features = set(json.loads(metadata["features"]))
    projection = Projection(
        matrix=tensors["matrix"],
        singular_values=tensors["singular_values"],
        encoder=ClipIdentity(**json.loads(metadata["encoder"])),
        method=metadata["method"],
        cutoff=float(json.loads(metadata["cutoff"])),
        kept=int(json.loads(metadata["kept"])),
        norm=float(json.loads(metadata["norm"])),
        bias=tensors["bias"] if "bias" in features else None,
        centred=_centred(metadata, tensors) if CENTRED in features else None,
    )
    loaded = with_adapters(projection, tensors)
    missing = features - {"bias", CENTRED} - set(features_of(loaded))
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    return loaded


def _centred(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Centred:
    numbers = json.loads(metadata[CENTRED])
    parts = {name: tensors[f"{CENTRED}.{name}"] for name in TENSORS}
    return Centred(**parts, **{name: float(numbers[name]) for name in NUMBERS})
