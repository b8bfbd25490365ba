"""The pictures that the demonstration works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# Bundled with scikit-image, so that nothing is downloaded: names in skimage.data.
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
NO_PHOTOGRAPHS = "The demonstration's photographs come with scikit-image: pip install scikit-image"


class MissingError(RuntimeError):
    """Something that the demonstration needs is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Reference:
    """A picture to start from, texts to edit it with, and whether to refine on it as well."""

    name: str
    path: Path
    edits: tuple[str, ...]
    refined: bool = False


@dataclass(frozen=True)
class Job:
    """One picture to make from a reference. text: None for no edit. strength 0: no reference."""

    label: str
    seed: int
    text: str | None = None
    strength: float = 1.0
    refined: bool = False


def photographs(names: tuple[str, ...], edits: tuple[str, ...], folder: Path) -> list[Reference]:
    """Sample photographs of scikit-image as PNG files in this folder. Raises MissingError."""
    try:
        from skimage import data
    except ImportError as error:
        raise MissingError(NO_PHOTOGRAPHS) from error

    folder.mkdir(parents=True, exist_ok=True)
    references = []
    for name in names:
        path = folder / f"{name}.png"
        Image.fromarray(getattr(data, name)()).convert("RGB").save(path)
        references.append(Reference(name, path, edits))
    return references
