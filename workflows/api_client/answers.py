"""What a ComfyUI says of a run, in its own words. Nothing is assumed about the answers' types."""

from __future__ import annotations

import json

_MOST_LETTERS = 4000  # of one message
_MOST_LINES = 50


def refusal(answer: dict) -> str:
    """A refused graph, one line for each thing that is wrong."""
    error = answer.get("error")
    lines = [_sentence(_dict(error) or {"message": error})] if error else []
    for number, node in _dict(answer.get("node_errors")).items():
        for problem in _list(_dict(node).get("errors")):
            where = f"node {printable(number)} ({_name(_dict(node), 'class_type')})"
            lines.append(f"{where}: {_sentence(_dict(problem))}")
    return "\n".join(lines[:_MOST_LINES])


def refusal_in(text: str) -> str:
    """A refused graph from the text of an answer; the text's start if it is something else."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    return refusal(_dict(answer)) or one_line(text)


def failure(entry: dict) -> str | None:
    """Why a run of the server's history did not succeed; None if it did."""
    status = _dict(entry.get("status"))
    for message in _list(status.get("messages")):
        event, data = (*_list(message), None, None)[:2]
        data = _dict(data)
        node = f"node {_name(data, 'node_id')} ({_name(data, 'node_type')})"
        if event == "execution_error":
            error = printable(data.get("exception_message")).strip()
            return f"{node}: {_name(data, 'exception_type')}: {error}"
        if event == "execution_interrupted":
            return f"interrupted on the server at {node}"
    if status.get("status_str") == "error":
        return "the run failed; the server does not say why"
    return None


def printable(value: object) -> str:
    """Text of a server, safe to show on a terminal and not endless."""
    text = value if isinstance(value, str) else repr(value)
    kept = (letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    whole = "".join(letter for _, letter in zip(range(_MOST_LETTERS), kept, strict=False))
    return whole if len(text) <= _MOST_LETTERS else f"{whole}..."


def one_line(text: str, most: int = 200) -> str:
    """The start of a text, in one line."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[:most]}..."


def _sentence(error: dict) -> str:
    parts = [printable(error.get(key) or "").strip() for key in ("message", "details")]
    return ": ".join(part for part in parts if part)


def _name(data: dict, key: str) -> str:
    return one_line(str(data.get(key, "unknown")))


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
