"""One malformed input, as data: how it is made, what it is given to, what must be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from image_to_prompt.nodes.inputs.advice import advised
from image_to_prompt.projection import ImageToPromptError


@dataclass(frozen=True)
class Case:
    """A bad call.

    name: unique; what is wrong, in words. act: makes the input and the call; it is given what
    its table says (a folder, or the host's tools). says: parts that the message must hold: what
    came, and which socket, file or widget mends it.
    """

    name: str
    act: Callable[[Any], object]
    says: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def message_of(case: Case, given: Any) -> str:
    """The message that a case ends in, as a node shows it: raised, or from its validation."""
    try:
        result = case.act(given)
    except ImageToPromptError as error:
        assert error.expected and error.got and error.do
        return str(advised(error))
    assert isinstance(result, str), f"accepted, with the result {result!r}"
    return result


def check(case: Case, given: Any) -> None:
    """Raise AssertionError unless the message is of three parts, whole, and says what it must."""
    message = message_of(case, given)
    missing = [part for part in case.says if part not in message]
    assert not missing, f"{missing} not in {message!r}"
    assert message.startswith("Expected ") and ". Got " in message, message
    assert len(message) < 700, "a message for people, not a dump"
    assert " object at 0x" not in message, message
