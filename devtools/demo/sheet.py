"""The contact sheet: inputs, masks and result, moment by moment."""

import textwrap
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL_HEIGHT = 192
MAX_CELL_WIDTH = 352
MARGIN = 40
GAP = 8
ROW_GAP = 20
LABEL_WIDTH = 150
HEADER_HEIGHT = 84
CAPTION_HEIGHT = 26
FOOTER_HEIGHT = 30
BACKGROUND = (250, 250, 249)
INK = (28, 25, 23)
SOFT_INK = (120, 113, 108)
EDGE = (214, 211, 209)


@dataclass(frozen=True)
class Row:
    """One line of pictures.

    Attributes:
        label: its name, in bold on the left.
        note: a few words under the label.
        pictures: one for each column, any size; None leaves the place free.
    """

    label: str
    note: str
    pictures: Sequence[Image.Image | None]


def contact_sheet(
    rows: Sequence[Row], columns: Sequence[str], title: str, subtitle: str = "", footer: str = ""
) -> Image.Image:
    """Draw rows of pictures with their labels; all cells have the shape of the last row's pictures.

    Args:
        rows: at least one, each with as many pictures as there are columns.
        columns: a caption for each column.
        title: heading.
        subtitle: one line of details.
        footer: one line at the bottom.

    Returns:
        An RGB picture.

    Raises:
        ValueError: a row's length is not the number of columns, or the last row has no picture.
    """
    for row in rows:
        if len(row.pictures) != len(columns):
            raise ValueError(
                f"row {row.label!r} has {len(row.pictures)} pictures, there are {len(columns)} columns"
            )
    cell = _cell_size(rows[-1])
    width = 2 * MARGIN + LABEL_WIDTH + len(columns) * (cell[0] + GAP) - GAP
    height = 2 * MARGIN + HEADER_HEIGHT + CAPTION_HEIGHT + len(rows) * (cell[1] + ROW_GAP) - ROW_GAP
    sheet = Image.new("RGB", (width, height + (FOOTER_HEIGHT if footer else 0)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _text_line(draw, (MARGIN, MARGIN - 8), title, 26, INK, width - 2 * MARGIN, bold=True)
    _text_line(draw, (MARGIN, MARGIN + 30), subtitle, 16, SOFT_INK, width - 2 * MARGIN)
    top = MARGIN + HEADER_HEIGHT
    left = MARGIN + LABEL_WIDTH
    for number, caption in enumerate(columns):
        middle = left + number * (cell[0] + GAP) + cell[0] // 2
        draw.text((middle, top), caption, SOFT_INK, _font(14), anchor="ma")
    top += CAPTION_HEIGHT
    for row in rows:
        _draw_label(draw, row, top)
        for number, picture in enumerate(row.pictures):
            _draw_cell(sheet, draw, picture, (left + number * (cell[0] + GAP), top), cell)
        top += cell[1] + ROW_GAP
    if footer:
        _text_line(draw, (MARGIN, top - ROW_GAP + MARGIN // 2), footer, 14, SOFT_INK, width - 2 * MARGIN)
    return sheet


def _cell_size(row: Row) -> tuple[int, int]:
    shapes = [picture.size for picture in row.pictures if picture is not None]
    if not shapes:
        raise ValueError(f"row {row.label!r} has no picture to take the shape from")
    width = round(shapes[0][0] * CELL_HEIGHT / shapes[0][1])
    if width <= MAX_CELL_WIDTH:
        return width, CELL_HEIGHT
    return MAX_CELL_WIDTH, round(shapes[0][1] * MAX_CELL_WIDTH / shapes[0][0])


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image | None, place: tuple, cell: tuple
) -> None:
    corners = (place[0] - 1, place[1] - 1, place[0] + cell[0], place[1] + cell[1])
    if picture is None:
        return
    sheet.paste(_cover(picture.convert("RGB"), cell), place)
    draw.rectangle(corners, outline=EDGE)


def _cover(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """Scaled to cover the cell and cropped in the middle, as the task nodes treat clips."""
    scale = max(cell[0] / picture.width, cell[1] / picture.height)
    wide, high = cell[0] / scale, cell[1] / scale
    left, top = (picture.width - wide) / 2, (picture.height - high) / 2
    return picture.resize(cell, Image.Resampling.LANCZOS, box=(left, top, left + wide, top + high))


def _draw_label(draw: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    draw.text((MARGIN, top - 3), row.label, INK, _font(18, bold=True))
    draw.multiline_text((MARGIN, top + 24), textwrap.fill(row.note, 19), SOFT_INK, _font(14), spacing=5)


def _text_line(
    draw: ImageDraw.ImageDraw,
    place: tuple,
    text: str,
    size: int,
    ink: tuple,
    room: int,
    *,
    bold: bool = False,
) -> None:
    """One line, cut with an ellipsis where it does not fit."""
    font = _font(size, bold=bold)
    if draw.textlength(text, font) > room:
        # The longest beginning that fits, by halves: prompts may have thousands of characters.
        lengths = range(1, len(text))
        count = bisect_left(lengths, True, key=lambda n: draw.textlength(text[:n] + "…", font) > room)
        text = text[:count].rstrip() + "…"
    draw.text(place, text, ink, font)


def _font(size: int, *, bold: bool = False) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """A system font where one is found, else the one that Pillow carries, which looks the same everywhere."""
    names = ("DejaVuSans-Bold.ttf", "arialbd.ttf", "Arial Bold.ttf") if bold else ()
    for name in (*names, "DejaVuSans.ttf", "arial.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
