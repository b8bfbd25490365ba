"""What only some of the commands need, and what to install for them."""

from __future__ import annotations

import importlib
from typing import Any

INSTALL = 'pip install "ray[data]>=2.40,<3" websocket-client'


class MissingError(RuntimeError):
    """A package that was asked for is not installed."""


def require(module: str, purpose: str) -> Any:
    """The module of this name. Raises MissingError, in one line that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingError(
            f"{purpose} needs {package}, which is not installed: {INSTALL}"
        ) from error
