"""The words of a CLIP's tokenizer. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

from typing import Any


def vocabulary(clip: Any) -> list[str]:
    """The tokens of the CLIP's tokenizer in the order of their ids; none where it shows none."""
    named = (getattr(clip.tokenizer, f"clip_{key}", None) for key in ("l", "g", "h"))
    tokenizer = next((each for each in named if each is not None), None)
    by_id = getattr(tokenizer, "inv_vocab", {})
    return [by_id[token] for token in sorted(by_id)]
