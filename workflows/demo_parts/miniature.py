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

from image_to_prompt.tests.miniature.drawings import captions, models
from image_to_prompt.tests.miniature.drawings.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.drawings.world import COLOURS, THINGS, pairs
from image_to_prompt.tests.miniature.sdxl import widen as sdxl
from image_to_prompt.tests.miniature.widening import widen
from image_to_prompt.workflows.checkout import ROOT

from .demo_assets import Reference

PARTS = ("clip", "taesd", "unet")
WIDE = ROOT / "build" / "drawings" / "wide"
UNTRAINED = ROOT / "build" / "untrained"


@dataclass(frozen=True)
class Weights:
    """The narrow parts' folder, and which of them are random numbers instead of trained."""

    folder: Path
    untrained: tuple[str, ...]

    def __str__(self) -> str:
        if not self.untrained:
            return "a small SD 1.5 trained on emoji (tests/miniature/drawings)"
        return (
            f"the miniature of SD 1.5 WITHOUT TRAINING ({', '.join(self.untrained)}): this proves "
            "the wiring only, and the pictures are noise"
        )


# Thing, ground, other ground, other thing. No model saw these pairs of a thing and a ground.
REFERENCES = (
    ("panda", "yellow", "green", "frog"),
    ("mushroom", "yellow", "blue", "strawberry"),
    ("sunflower", "black", "purple", "star"),
)
CAPTIONS_EVERY = 9  # 523 of the known captions: at SDXL's shapes each is encoded for seconds
NOISE = 7  # of the references: another one than that of the variations


def world_pictures(folder: Path, source: Weights | None = None) -> list[Reference]:
    """Pictures that the miniature draws from captions, each with two edits, as PNG files.

    Nothing is fetched for them. The last stage of the demonstration refines on the first one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mini, references = Miniature.load((source or weights()).folder), []
    for number, (thing, ground, other_ground, other) in enumerate(REFERENCES):
        states, _ = mini.states([f"a {thing} on a {ground} background"])
        path = folder / f"{thing}-on-{ground}.png"
        to_pil(mini.draw(states, noise_of(NOISE, 1))[0]).save(path)
        edits = (f"a {thing} on a {other_ground} background", f"a {other}")
        references.append(Reference(f"{thing} on {ground}", path, edits, refined=number == 0))
    return references


def training_pictures(folder: Path, count: int) -> None:
    """Pictures that the miniature draws from captions of known pairs, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    known = pairs("train")
    chosen = known[torch.arange(count) * 11 % len(known)].tolist()
    mini = Miniature.load(weights().folder)
    states, _ = mini.states([f"a {THINGS[t]} on a {COLOURS[g]} background" for t, g in chosen])
    for number, picture in enumerate(mini.draw(states, noise_of(0, count))):
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


def sdxl_checkpoint() -> Path:
    """Checkpoint of the miniature of SDXL at SDXL's shapes, made once for these weights."""
    return sdxl.write()


def known_captions() -> list[str]:
    """Captions of known pairs, which the miniature's text encoders were trained on."""
    every = [text for pair in pairs("train") for text in captions.all_captions(pair)]
    return every[::CAPTIONS_EVERY]


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
