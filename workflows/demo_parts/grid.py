"""One labelled picture from many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, LABEL = 192, 8, 20
FONT_SIZES = (13, 12, 11, 10)
_BACKGROUND, _INK = "white", "black"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Cell = tuple[str, Path]  # label and picture
Row = Sequence[Cell | None]  # None leaves a place empty


def draw(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Write a grid of pictures, each scaled to fit its square, with its label above it."""
    columns = max(len(row) for row in rows)
    width = columns * (CELL + GAP) + GAP
    height = LABEL + GAP + len(rows) * (CELL + LABEL + GAP)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP // 2), title, fill=_INK, font=ImageFont.load_default(14))
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if cell is not None:
                x, y = GAP + c * (CELL + GAP), LABEL + GAP + r * (CELL + LABEL + GAP)
                _place(sheet, pen, cell, x, y)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, x: int, y: int) -> None:
    label, file = cell
    font = _fitting_font(pen, label)
    pen.text((x, y), _fitting(pen, label, font), fill=_INK, font=font)
    picture = Image.open(file).convert("RGB")
    scale = CELL / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    offset = [(CELL - side) // 2 for side in picture.size]
    sheet.paste(picture, (x + offset[0], y + LABEL + offset[1]))


def _fitting_font(pen: ImageDraw.ImageDraw, label: str) -> Font:
    """The largest font in which a label is no wider than its cell, else the smallest one."""
    fonts = [ImageFont.load_default(size) for size in FONT_SIZES]
    return next((font for font in fonts if pen.textlength(label, font=font) <= CELL), fonts[-1])


def _fitting(pen: ImageDraw.ImageDraw, label: str, font: Font) -> str:
    while label and pen.textlength(label, font=font) > CELL:
        label = label[:-1]
    return label
