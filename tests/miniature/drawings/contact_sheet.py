"""A grid of pictures as one image."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

GAP = 3


def save_sheet(rows: list[Tensor], path: Path, scale: int = 1) -> None:
    """Write rows of pictures (N, 3, H, W) in [0, 1] under each other."""
    height, width = rows[0].shape[-2:]
    columns = max(len(row) for row in rows)
    sheet = torch.full((3, len(rows) * (height + GAP) + GAP, columns * (width + GAP) + GAP), 0.5)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = GAP + r * (height + GAP), GAP + c * (width + GAP)
            sheet[:, top : top + height, left : left + width] = picture
    image = Image.fromarray((sheet.permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)
