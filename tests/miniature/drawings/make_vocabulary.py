"""Write vocabulary.json from CLIP's own vocabulary: python -m ... make_vocabulary vocab.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .captions import OTHER, TEMPLATES
from .tokenizer import TABLE, words_of
from .world import COLOURS, THINGS


def words() -> list[str]:
    """Every word of the world, sorted."""
    text = " ".join(TEMPLATES).replace("{t}", "").replace("{g}", "")
    return sorted({*words_of(text), *THINGS, *COLOURS, *OTHER})


def main() -> None:
    """Look every word up; ValueError for one that is not a single token."""
    vocabulary = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    missing = [word for word in words() if f"{word}</w>" not in vocabulary]
    if missing:
        raise ValueError(f"not single tokens of CLIP: {missing}")
    table = {word: vocabulary[f"{word}</w>"] for word in words()}
    TABLE.write_text(json.dumps(table, indent=0) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
