"""Where the drawings come from: sets, licences, names, and the cached rasters of all of them.

No drawing is part of this repository. `npm pack` fetches the sets once into a folder that git
ignores, resvg renders them, and a file beside them keeps the rasters.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

BUILD = Path(__file__).resolve().parents[3] / "build" / "drawings"
RASTER = 192  # pixels of a cached drawing's side
RENDERED = 256  # pixels at which resvg draws before cropping


@dataclass(frozen=True)
class Artist:
    """One set of drawings: the npm package is @iconify-json/`name`."""

    name: str
    version: str
    licence: str
    credit: str
    trained: bool


ARTISTS = (
    Artist("noto", "1.2.9", "Apache-2.0", "Noto Emoji, Google", True),
    Artist("noto-v1", "1.2.5", "Apache-2.0", "Noto Emoji v1, Google", True),
    Artist("fxemoji", "1.2.2", "Apache-2.0", "Firefox OS Emoji, Mozilla", True),
    Artist("fluent-emoji-flat", "1.2.6", "MIT", "Fluent Emoji Flat, Microsoft", True),
    Artist("fluent-emoji", "1.2.7", "MIT", "Fluent Emoji, Microsoft", True),
    Artist("twemoji", "1.2.5", "CC-BY-4.0", "Twitter Emoji, Twitter and contributors", True),
    Artist("emojione", "1.2.3", "CC-BY-4.0", "Emoji One (Colored) 2.3, Emoji One", False),
    Artist("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji, the OpenMoji project", False),
)

# A thing's word -> its names in the sets, in order of preference.
THINGS = {
    "cat": ("cat-face", "cat"),
    "dog": ("dog-face", "dog"),
    "fox": ("fox",),
    "panda": ("panda", "pandaface"),
    "frog": ("frog",),
    "pig": ("pig-face", "pig"),
    "penguin": ("penguin",),
    "octopus": ("octopus",),
    "turtle": ("turtle",),
    "apple": ("red-apple", "redapple"),
    "banana": ("banana",),
    "strawberry": ("strawberry",),
    "pineapple": ("pineapple",),
    "pizza": ("pizza", "sliceofpizza"),
    "car": ("automobile",),
    "rocket": ("rocket",),
    "house": ("house", "housebuilding"),
    "tree": ("deciduous-tree", "deciduoustree"),
    "cactus": ("cactus",),
    "mushroom": ("mushroom",),
    "sunflower": ("sunflower",),
    "umbrella": ("umbrella-with-rain-drops", "umbrellawithraindrops"),
    "guitar": ("guitar",),
    "star": ("star",),
}


def package(artist: Artist, folder: Path = BUILD) -> Path:
    """The packed set on disk; fetched by npm if it is not there."""
    target = folder / "npm" / f"iconify-json-{artist.name}-{artist.version}.tgz"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted = f"@iconify-json/{artist.name}@{artist.version}"
        subprocess.run(["npm", "pack", "--silent", wanted], cwd=target.parent, check=True)
    return target


def read_icons(path: Path) -> dict:
    """The table of icons of a packed set."""
    with tarfile.open(path) as archive:
        file = archive.extractfile("package/icons.json")
        if file is None:
            raise ValueError(f"expected package/icons.json in {path.name}")
        return json.load(file)


def svg(icons: dict, names: tuple[str, ...]) -> str | None:
    """The SVG document of the first of `names` that the set has, or None."""
    aliases = icons.get("aliases", {})
    name = next((n for n in names if n in icons["icons"] or n in aliases), None)
    if name is None:
        return None
    while name not in icons["icons"]:
        name = aliases[name]["parent"]
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body']}</svg>"
    )


def rasterise(document: str) -> np.ndarray:
    """Premultiplied RGBA (RASTER, RASTER, 4), uint8: the drawing's own box, centred in a square."""
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_string=document, width=RENDERED, height=RENDERED)
    picture = np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGBA"), np.float32) / 255
    picture = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], axis=-1)
    rows, columns = np.nonzero(picture[..., 3] > 0.1)
    box = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = max(box.shape[:2])
    square = np.zeros((side, side, 4), np.float32)
    top, left = (side - box.shape[0]) // 2, (side - box.shape[1]) // 2
    square[top : top + box.shape[0], left : left + box.shape[1]] = box
    size = (RASTER, RASTER)
    channels = [
        np.asarray(Image.fromarray(square[..., k]).resize(size, Image.Resampling.LANCZOS))
        for k in range(4)
    ]
    return (np.stack(channels, axis=-1).clip(0, 1) * 255).round().astype(np.uint8)


def load_drawings(folder: Path = BUILD) -> Tensor:
    """Premultiplied RGBA (things, artists, 4, RASTER, RASTER), uint8; zero where none exists."""
    path = folder / "rasters.npz"
    if not path.exists():
        table = np.zeros((len(THINGS), len(ARTISTS), RASTER, RASTER, 4), np.uint8)
        for column, artist in enumerate(ARTISTS):
            icons = read_icons(package(artist, folder))
            for row, names in enumerate(THINGS.values()):
                document = svg(icons, names)
                if document is not None:
                    table[row, column] = rasterise(document)
        scratch = path.with_name("rasters.partial.npz")
        np.savez_compressed(scratch, rgba=table)
        scratch.replace(path)
    return torch.from_numpy(np.load(path)["rgba"]).permute(0, 1, 4, 2, 3).contiguous()
