"""`draw_sheet`: small pictures of what a version holds, side by side as one. Blocking; any thread."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from fusefs.logs import escape
from store.errors import InputError

CELL: Final = (160, 90)
"""Width and height in pixels of the box of one picture."""
COLUMNS: Final = 8
MOST_HEIGHT: Final = 16_000
"""Pixels: 63 MB while it is drawn."""

_GAP: Final = 4
_LABEL: Final = 20
_WIDTH: Final = _GAP + COLUMNS * (CELL[0] + _GAP)
_FONT_SIZE: Final = 12
_LONGEST_LABEL: Final = 300
_GROUND: Final = (32, 32, 32)
_EMPTY: Final = (64, 64, 64)
_INK: Final = (224, 224, 224)


@dataclass(frozen=True, slots=True)
class Section:
    """A video or a folder of images: a line of text and pictures below it."""

    label: str
    pictures: Sequence[bytes] = field(repr=False)
    """PNG files that fit into a `CELL`; an empty one where a picture cannot be had."""


def height_of(pictures: int) -> int:
    """Pixels that a section of so many pictures takes."""
    return _LABEL + -(-pictures // COLUMNS) * (CELL[1] + _GAP)


def check_place(path: Path) -> None:
    """Raises `InputError` where no sheet may be written."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} is not the name of a .png file")
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: remove it, or give another name")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.parent} is not a directory")


def draw_sheet(sections: Sequence[Section]) -> Image.Image:
    """Sections below one another, as many as `MOST_HEIGHT` allows."""
    height = _GAP + sum(height_of(len(section.pictures)) for section in sections)
    sheet = Image.new("RGB", (_WIDTH, min(height, MOST_HEIGHT)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    top = _GAP
    for section in sections:
        label = escape(section.label)[:_LONGEST_LABEL]
        while draw.textlength(label, font) > _WIDTH - 2 * _GAP:
            label = f"{label[: len(label) * 9 // 10 - 1]}…"
        draw.text((_GAP, top), label, _INK, font)
        for number, data in enumerate(section.pictures):
            row, column = divmod(number, COLUMNS)
            left = _GAP + column * (CELL[0] + _GAP)
            _place(sheet, draw, data, left, top + _LABEL + row * (CELL[1] + _GAP))
        top += height_of(len(section.pictures))
    return sheet


def _place(sheet: Image.Image, draw: ImageDraw.ImageDraw, data: bytes, left: int, top: int) -> None:
    width, height = CELL
    if not data:
        draw.rectangle((left, top, left + width - 1, top + height - 1), _EMPTY)
        return
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Make the file at once and whole. Raises `InputError` where there is one by now, and OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            sheet.save(file, "PNG")
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise InputError(f"{path} is there already: remove it, or give another name") from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            check_place(path)  # a file system without hard links
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
