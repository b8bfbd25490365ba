"""The one error that users of this package see."""

from __future__ import annotations

MAX_LENGTH = 300  # characters of each part of a message; what is quoted can be of any size


class ImageToPromptError(ValueError):
    """Bad input, said in three parts: what was expected, what came, what to do about it.

    Every part is printable: characters that no terminal or log can write are escaped, and a part
    of over 300 characters is shortened in its middle.

    subject: what is wrong, in one or two words such as "text encoder", so that a program around
    this package can replace `do` by advice of its own. Empty where the advice is complete.
    """

    def __init__(self, expected: str, got: str, do: str, subject: str = "") -> None:
        self.expected, self.got, self.do = (printable(part) for part in (expected, got, do))
        self.subject = subject
        super().__init__(f"Expected {self.expected}. Got {self.got}. {self.do}")


# Named by users' screens and logs, which show the class with its module.
ImageToPromptError.__module__ = "image_to_prompt"


def printable(text: str) -> str:
    """The text, shortened, with control characters and lone surrogates escaped."""
    if len(text) > MAX_LENGTH:
        half = MAX_LENGTH // 2 - 3
        text = f"{text[:half]} ... {text[-half:]}"
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
