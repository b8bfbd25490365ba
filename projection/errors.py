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


def quoted(value: object) -> str:
    """A value as a message quotes it: short for any value, and without places in memory."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a whole number of about {value.bit_length() * 3 // 10} digits"
    if value is None or isinstance(value, (int, float, str)):
        return printable(repr(value))
    return type(value).__name__


def printable(text: str) -> str:
    """The text, shortened, with control characters and lone surrogates escaped."""
    if len(text) > MAX_LENGTH:
        half = MAX_LENGTH // 2 - 3
        text = f"{text[:half]} ... {text[-half:]}"
    escaped = escape(text)
    # Escapes are up to ten times as long as what they stand for.
    return escaped if len(escaped) <= 2 * MAX_LENGTH else printable(escaped)


def escape(text: str) -> str:
    """The text with control characters and lone surrogates escaped, so that a log can hold it."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
