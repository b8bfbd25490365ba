"""The one error that users of this package see."""

from __future__ import annotations


class ImageToPromptError(ValueError):
    """Bad input, said in three parts: what was expected, what came, what to do about it.

    `do` names the node, the socket or the file that mends it.
    """

    def __init__(self, expected: str, got: str, do: str) -> None:
        self.expected = expected
        self.got = got
        self.do = do
        super().__init__(f"Expected {expected}. Got {got}. {do}")
