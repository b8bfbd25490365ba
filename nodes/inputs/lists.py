"""Lists of inputs, as the host maps a node over them that takes none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...projection import ImageToPromptError


def as_list(value: Any, name: str) -> list:
    """A list as it is, another value as a list of one. Raises ImageToPromptError for no items."""
    if isinstance(value, list) and not value:
        raise ImageToPromptError(
            f"at least one {name}", "an empty list", f"Correct what is connected to socket {name}."
        )
    return value if isinstance(value, list) else [value]


def mapped(lists: Mapping[str, list]) -> Iterator[dict[str, Any]]:
    """One item of each list at a time, as many as the longest has; shorter ones repeat their last.

    As in `execution._async_map_node_over_list` of 0.3.64 and 0.33.0.
    """
    for index in range(max(map(len, lists.values()))):
        yield {name: values[min(index, len(values) - 1)] for name, values in lists.items()}
