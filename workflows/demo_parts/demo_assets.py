"""The pictures that the demonstration works on, and pixels from and to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

# Bundled with scikit-image, so that nothing is downloaded: names in skimage.data.
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
NO_PHOTOGRAPHS = "The demonstration's photographs come with scikit-image: pip install scikit-image"


class MissingError(RuntimeError):
    """Something that the demonstration needs is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Reference:
    """A picture to start from, and texts to edit it with."""

    name: str
    path: Path
    edits: tuple[str, ...]


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


def to_pil(picture: torch.Tensor) -> Image.Image:
    """A picture (3, H, W) in [0, 1] as a PIL image."""
    return Image.fromarray((255 * picture.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy())


def from_file(path: Path) -> torch.Tensor:
    """A picture file as (1, 3, H, W) in [0, 1]."""
    from numpy import asarray

    pixels = asarray(Image.open(path).convert("RGB")).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
