"""What tells one run-time patch from another: its code's name and the numbers it was made with."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from torch import Tensor

_DEEPEST = 4  # levels of lists and dicts in a setting


def named_patches(patcher: Any) -> dict[str, list[Any]]:
    """The patches of a ModelPatcher's transformer_options, in their order, by a readable name."""
    found: dict[str, list[Any]] = {}
    options = patcher.model_options.get("transformer_options", {})
    for kind, patches in options.get("patches", {}).items():
        for patch in patches:
            found.setdefault(f"{_name(patch)} ({kind})", []).append(patch)
    for kind, places in options.get("patches_replace", {}).items():
        for place, patch in places.items():
            found.setdefault(f"{_name(patch)} ({kind} {place})", []).append(patch)
    return found


def patch_settings(patcher: Any, sketch: Callable[[Tensor], str]) -> Iterator[str]:
    """Each run-time patch by name, and the values that it was made with.

    Those are the numbers, texts and tensors (by their sketch) in closures, defaults and attributes.
    A variable that a patch assigns to is its memory and no setting.
    """
    named = named_patches(patcher)
    patches = [part for some in named.values() for patch in some for part in _parts(patch)]
    assigned = {cell for patch in patches for cell in _assigned_cells(patch)}
    for name, some in named.items():
        for part in (part for patch in some for part in _parts(patch)):
            yield name
            yield from _leaves(_values(part, assigned), sketch)


def _parts(patch: Any) -> Iterator[Any]:
    """A patch, or the parts of a pair of a layer's type and a patch."""
    if isinstance(patch, tuple):
        yield from patch
    else:
        yield patch


def _name(patch: Any) -> str:
    parts = [part for part in _parts(patch) if not isinstance(part, type)] or [patch]
    function = _function(parts[-1])
    code = function if function is not None else type(parts[-1])
    return f"{code.__module__.rpartition('.')[2]}.{code.__qualname__}".replace(".<locals>", "")


def _function(patch: Any) -> FunctionType | None:
    """The function that a patch is, or that a method or partial calls; None for an object."""
    while isinstance(patch, functools.partial):
        patch = patch.func
    patch = getattr(patch, "__func__", patch)
    return patch if isinstance(patch, FunctionType) else None


def _assigned_cells(patch: Any) -> list[int]:
    function = _function(patch)
    if function is None or not function.__closure__:
        return []
    stores = dis.get_instructions(function.__code__)
    names = {step.argval for step in stores if step.opname in ("STORE_DEREF", "DELETE_DEREF")}
    cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
    return [id(cell) for name, cell in cells if name in names]


def _values(patch: Any, assigned: set[int]) -> list[Any]:
    values: list[Any] = []
    while isinstance(patch, functools.partial):
        values += [list(patch.args), dict(patch.keywords)]
        patch = patch.func
    owner = getattr(patch, "__self__", None if _function(patch) else patch)
    if owner is not None and not isinstance(owner, type):
        values.append(getattr(owner, "__dict__", {}))
    function = _function(patch)
    if function is not None:
        values += [function.__defaults__ or (), function.__kwdefaults__ or {}]
        values += [_content(c) for c in function.__closure__ or () if id(c) not in assigned]
    return values


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _leaves(value: Any, sketch: Callable[[Tensor], str], depth: int = 0) -> Iterator[str]:
    """Numbers, texts and tensors of nested lists and dicts; other objects say nothing."""
    if isinstance(value, Tensor):
        yield sketch(value)
    elif isinstance(value, (bool, int, float, str)):
        yield repr(value)
    elif isinstance(value, (list, tuple)) and depth < _DEEPEST:
        for item in value:
            yield from _leaves(item, sketch, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        for key, item in value.items():
            if isinstance(key, (bool, int, float, str)):
                yield repr(key)
                yield from _leaves(item, sketch, depth + 1)
