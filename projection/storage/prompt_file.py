"""Prompts as safetensors files: what an image became, small enough to share in its place.

`vectors` (K, D) float32 are the distinct vectors of the slots and `slots` (B, 77 n) int32 tell
which of them each slot holds: one vector, 3 KB for SD 1.x, for an image alone. Metadata name the
encoder; `features` works as in `projection_file`: "common" is the common part of a centred
projection, with its gap, beside which a text is added; "family" is a prompt of SD 2.x or SDXL, see
`families.prompt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..closed_form.clip_identity import ClipIdentity
from ..errors import ImageToPromptError
from ..families.saved import FamilyPrompt
from ..prompt.conditioning import CHUNK
from ..prompt.slots import SlotPrompt
from .families.prompt import FAMILY, family_prompt_of, numbers_of, tensors_of
from .metadata import as_metadata, check_version, metadata_value
from .tensor_file import TensorFile, encode
from .whole_file import create_file, replace_file

FORMAT = "image-to-prompt prompt"
VERSION = 1
COMMON = "common"
_REMAKE = "Save the prompt again."


def save_prompt(prompt: SlotPrompt | FamilyPrompt, path: str | Path) -> None:
    """Write a prompt to `path`, whole or not at all."""
    replace_file(path, encode(_tensors(prompt), _metadata(prompt)))


def save_new_prompt(
    prompt: SlotPrompt | FamilyPrompt, folder: str | Path, names: Iterable[str]
) -> Path:
    """As `save_prompt`, under the first of `names` that `folder` does not hold: its path.

    Never replaces a file. Raises FileExistsError where every name is taken.
    """
    return create_file(folder, names, encode(_tensors(prompt), _metadata(prompt)))


def load_prompt(path: str | Path) -> SlotPrompt | FamilyPrompt:
    """Read a prompt saved by `save_prompt`, bit for bit.

    Raises ImageToPromptError for another kind of file, a newer version, or a damaged one.
    """
    file = TensorFile.open(path)
    if not is_prompt(file.metadata):
        raise ImageToPromptError(
            "a prompt file",
            f"{file.path.name}, which is another kind of file",
            "Read a file that save_prompt wrote.",
            "prompt file",
        )
    try:
        features = check_version(file, "prompt file", VERSION, {COMMON, FAMILY})
        return _read(file.metadata, file.read_all(), features)
    except ImageToPromptError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ImageToPromptError(
            "a whole prompt file",
            f"{Path(path).name} without or with bad {error}",
            _REMAKE,
            "prompt file",
        ) from error


def is_prompt(metadata: Mapping[str, str] | None) -> bool:
    """Whether safetensors metadata is that of a saved prompt."""
    return (metadata or {}).get("format") == FORMAT


def _tensors(prompt: SlotPrompt | FamilyPrompt) -> dict[str, Tensor]:
    if isinstance(prompt, FamilyPrompt):
        return tensors_of(prompt)
    tensors = {"vectors": prompt.vectors.float(), "slots": prompt.slots.to(torch.int32)}
    return tensors if prompt.common is None else {**tensors, COMMON: prompt.common.float()}


def _metadata(prompt: SlotPrompt | FamilyPrompt) -> dict[str, str]:
    facts = {"format": FORMAT, "format_version": VERSION}
    if isinstance(prompt, FamilyPrompt):
        return as_metadata({**facts, "features": [FAMILY], **numbers_of(prompt)})
    values = {
        **facts,
        "features": [] if prompt.common is None else [COMMON],
        "encoder": asdict(prompt.encoder),
    }
    return as_metadata(values if prompt.common is None else {**values, "gap": prompt.gap})


def _read(
    metadata: Mapping[str, str], tensors: dict[str, Tensor], features: list[str]
) -> SlotPrompt | FamilyPrompt:
    if FAMILY not in features:
        return _prompt(metadata, tensors, features)
    if features != [FAMILY]:
        raise ValueError(f"features {', '.join(features)} that exclude each other")
    prompt = family_prompt_of(metadata, tensors)
    vectors = prompt.vectors
    _check_vectors("vectors", vectors, (len(vectors) if vectors.ndim else 0, prompt.family.width))
    _check_slots(tensors["slots"], len(vectors))
    return prompt


def _prompt(
    metadata: Mapping[str, str], tensors: dict[str, Tensor], features: list[str]
) -> SlotPrompt:
    centred = COMMON in features
    expected = {"vectors", "slots", COMMON} if centred else {"vectors", "slots"}
    if wrong := expected ^ tensors.keys():
        raise ValueError(f"tensors {', '.join(sorted(wrong)[:3])}, missing or of no feature")
    encoder = ClipIdentity(**metadata_value(metadata, "encoder", dict))
    vectors, slots = tensors["vectors"], tensors["slots"]
    _check_vectors("vectors", vectors, (len(vectors) if vectors.ndim else 0, encoder.text_width))
    _check_slots(slots, len(vectors))
    gap = float(metadata_value(metadata, "gap", float, int)) if centred else 0.0
    if centred:
        _check_vectors(COMMON, tensors[COMMON], (encoder.text_width,))
        if not 0 < gap <= 1:
            raise ValueError(f"gap {gap}")
    return SlotPrompt(vectors, slots.long(), encoder, tensors.get(COMMON), gap)


def _check_vectors(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    whole = tensor.dtype == torch.float32 and tuple(tensor.shape) == shape and 0 not in shape
    if not whole or not torch.isfinite(tensor).all():
        raise ValueError(f"{name} {tuple(tensor.shape)} {tensor.dtype}")


def _check_slots(slots: Tensor, count: int) -> None:
    shaped = slots.dtype == torch.int32 and slots.ndim == 2 and 0 not in slots.shape
    if not shaped or slots.shape[1] % CHUNK or int(slots.min()) < 0 or int(slots.max()) >= count:
        raise ValueError(f"slots {tuple(slots.shape)} {slots.dtype}")
