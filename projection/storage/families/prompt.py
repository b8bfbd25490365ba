"""A family's saved prompt as named tensors and numbers, for a prompt's file.

The tensors are `vectors`, `slots` and `pooled` as in `FamilyPrompt`, and `<reading>.offset` and
`<reading>.scale`: what a text is added beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...closed_form.clip_identity import ClipIdentity
from ...families.saved import FamilyPrompt
from ...families.slots import Origin
from ..metadata import metadata_value
from .readings import family_of

FAMILY = "family"


def tensors_of(prompt: FamilyPrompt) -> dict[str, Tensor]:
    """Every tensor of the prompt under its name in files."""
    slots = prompt.slots.to(torch.int32)
    found = {"vectors": prompt.vectors, "slots": slots, "pooled": prompt.pooled}
    for name, origin in prompt.origins.items():
        found |= {f"{name}.offset": origin.offset, f"{name}.scale": origin.scale}
    return found


def numbers_of(prompt: FamilyPrompt) -> dict[str, Any]:
    """Everything else about the prompt, as JSON holds it."""
    family, encoder = asdict(prompt.family), asdict(prompt.encoder)
    return {FAMILY: family, "layer": prompt.layer, "encoder": encoder}


def family_prompt_of(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> FamilyPrompt:
    """The inverse of both; `vectors` and `slots` are checked by the caller.

    Raises KeyError, TypeError or ValueError for what is damaged.
    """
    family = family_of(metadata_value(metadata, FAMILY, dict))
    layer = metadata_value(metadata, "layer", int)
    if layer >= 0:
        raise ValueError(f"layer {layer}")
    pooled = tensors["pooled"]
    if pooled.ndim != 2 or 0 in pooled.shape or not _plain(pooled):
        raise ValueError(f"pooled {tuple(pooled.shape)}")
    widths = {part.key: part.width for part in family.parts}
    origins = {
        name: _origin(name, widths.get(name.partition(".")[0], pooled.shape[1]), tensors)
        for name in family.reading_names
    }
    expected = {"vectors", "slots", "pooled"}
    expected |= {f"{name}.{field}" for name in origins for field in ("offset", "scale")}
    if wrong := expected ^ tensors.keys():
        raise ValueError(f"tensors {', '.join(sorted(wrong)[:3])}, missing or of no feature")
    vectors, slots = tensors["vectors"], tensors["slots"]
    if pooled.shape[:1] != slots.shape[:1]:
        raise ValueError(f"pooled {tuple(pooled.shape)}")
    encoder = ClipIdentity(**metadata_value(metadata, "encoder", dict))
    return FamilyPrompt(family, layer, vectors, slots.long(), pooled, origins, encoder)


def _origin(name: str, width: int, tensors: Mapping[str, Tensor]) -> Origin:
    offset, scale = tensors[f"{name}.offset"], tensors[f"{name}.scale"]
    fit = all(tuple(each.shape) == (width,) and _plain(each) for each in (offset, scale))
    if not fit or not (scale > 0).all():
        raise ValueError(f"{name} {tuple(offset.shape)}, {tuple(scale.shape)}")
    return Origin(offset, scale)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())
