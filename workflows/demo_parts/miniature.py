"""The trained miniature of SD 1.5, which only a clone of the repository has: its files and world.

The one module here, beside demo_alone, that imports from tests/; it is imported where the miniature
is used and not before.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from image_to_prompt.tests.miniature import models
from image_to_prompt.tests.miniature.widening import widen
from image_to_prompt.tests.miniature.world import scenes as world
from image_to_prompt.workflows.checkout import ROOT

from .demo_assets import Reference

PARTS = ("clip", "taesd", "unet")
WIDE = ROOT / "build" / "miniature"
UNTRAINED = ROOT / "build" / "untrained"


@dataclass(frozen=True)
class Weights:
    """The narrow parts' folder, and which of them are random numbers instead of trained."""

    folder: Path
    untrained: tuple[str, ...]

    def __str__(self) -> str:
        if not self.untrained:
            return "the trained miniature of SD 1.5 (tests/miniature)"
        return (
            f"the miniature of SD 1.5 WITHOUT TRAINING ({', '.join(self.untrained)}): this proves "
            "the wiring only, and the pictures are noise"
        )


def world_pictures(folder: Path) -> list[Reference]:
    """Two pictures of the miniature's world, with combinations it was never trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    triples = world.combinations("test")[[4, 30]]
    scenes = world.place(triples, torch.Generator().manual_seed(3))
    references = []
    for triple, picture in zip(triples.tolist(), world.render(scenes), strict=True):
        shape, figure, ground = triple
        shape_name = world.SHAPES[shape]
        name = f"{world.COLOURS[figure]} {shape_name} on {world.COLOURS[ground]}"
        path = folder / f"{name.replace(' ', '-')}.png"
        to_pil(picture).save(path)
        other = next(c for c in world.COLOURS if c not in (world.COLOURS[i] for i in triple[1:]))
        references.append(Reference(name, path, (f"a {other} {shape_name}",)))
    return references


def training_pictures(folder: Path, count: int) -> None:
    """Pictures of the miniature's world as PNG files in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = world.sample(count, "train", torch.Generator().manual_seed(0))
    for number, picture in enumerate(world.render(scenes)):
        to_pil(picture).save(folder / f"{number:03}.png")


def to_pil(picture: torch.Tensor) -> Image.Image:
    """A picture (3, H, W) in [0, 1] as a PIL image."""
    return Image.fromarray((255 * picture.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy())


def from_file(path: Path) -> torch.Tensor:
    """A picture file as (1, 3, H, W) in [0, 1]."""
    from numpy import asarray

    pixels = asarray(Image.open(path).convert("RGB")).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def weights() -> Weights:
    """The miniature's trained parts; random ones in place of those that do not exist."""
    absent = tuple(part for part in PARTS if not _file(models.WEIGHTS, part).exists())
    if not absent:
        return Weights(models.WEIGHTS, ())
    UNTRAINED.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if part not in absent:
            shutil.copy2(_file(models.WEIGHTS, part), _file(UNTRAINED, part))
        elif not _file(UNTRAINED, part).exists():
            models.save(_random(part), part, UNTRAINED, latent_std="1.0")
    return Weights(UNTRAINED, absent)


def wide_files(source: Weights) -> tuple[Path, Path]:
    """Checkpoint and CLIP file at SD 1.5's shapes, made once for these weights."""
    out = WIDE if not source.untrained else UNTRAINED / "wide"
    files = (out / widen.CHECKPOINT, out / widen.CLIP)
    newest = max(_file(source.folder, part).stat().st_mtime for part in PARTS)
    if not all(file.exists() and file.stat().st_mtime > newest for file in files):
        with torch.no_grad():
            widen.write(out, source.folder)
    return files


def _file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors"


def _random(part: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # PyTorch's layers know no other source of initial weights
        model: Any = models.BUILDERS[part]()
        if part == "clip":
            # A spectrum with a tail, as trained ones have: plain noise would be refused.
            u, _, v = torch.linalg.svd(torch.randn_like(model.text_projection.weight))
            values = torch.linspace(0.7, 0.05, len(u))
            model.text_projection.weight.data = u @ torch.diag(values) @ v
    return model
