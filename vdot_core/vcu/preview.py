"""Draws a unit: its frames over time, generated regions hatched, and the references next to them.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..choices import ALL_STEPS
from ..files import new_file
from ..memory import RGB, check_size
from ..progress import steps
from ..text import counted, shown
from .alike import percents, strength_shown
from .checks import whole
from .drawing import GENERATE, GUIDE, KEEP, draw_bar, frame_picture, moments, reference_picture
from .unit import VCU

if TYPE_CHECKING:
    from PIL import ImageDraw

MAX_COLUMNS = 24
CELL_AREA = 150 * 150
GAP, PAD, TITLE, LABEL, STRIP = 6, 12, 26, 17, 9
LEGEND = 190  # width of the colors' names
BACKGROUND, TEXT, FAINT = (24, 24, 27), (228, 228, 231), (139, 139, 148)


@dataclass(frozen=True)
class _Sheet:
    """The sheet's layout: cells of `width` x `height`, `columns` of frames, `side` columns of references."""

    width: int
    height: int
    columns: int
    side: int
    rows: int

    @property
    def left(self) -> int:
        """X of the first reference."""
        return PAD + self.columns * (self.width + GAP) + PAD

    @property
    def size(self) -> tuple[int, int]:
        wide = PAD + self.columns * (self.width + GAP) - GAP + PAD
        if self.side:
            wide = self.left + self.side * (self.width + GAP) - GAP + PAD
        return wide, TITLE + PAD + self.rows * (self.height + LABEL) + STRIP + PAD


def preview(vcu: VCU, columns: int = 6) -> Tensor:
    """Draw a unit.

    Generated regions are hatched in amber: densely where nothing is known, lightly over a control. The
    strip below shows all frames: green is kept, blue is guided, amber is free; where the strength
    differs between latent frames, its height is the strength.

    Args:
        vcu: the unit.
        columns: number of frames to show, spread over the video.
    Returns:
        [H, W, 3] float in [0, 1].
    Raises:
        ValueError: not a unit, or no column.
    """
    from PIL import Image, ImageDraw

    if not isinstance(vcu, VCU):
        raise ValueError(f"vcu is a {type(vcu).__name__}, expected a VCU; make it with a builder")
    columns = min(whole("columns", columns, 1, MAX_COLUMNS), vcu.num_frames)
    scale = (CELL_AREA / (vcu.width * vcu.height)) ** 0.5
    # One row of frames; references next to it in rows of the same height.
    sheet = _Sheet(
        width=max(64, round(vcu.width * scale)),
        height=max(64, round(vcu.height * scale)),
        columns=columns,
        side=len(vcu.references),
        rows=1,
    )
    check_size(
        sheet.size[0] * sheet.size[1] * (2 * RGB),
        f"a sheet of {sheet.size[0]}x{sheet.size[1]} pixels with {counted(sheet.side, 'reference')}",
        "give fewer references or columns",
    )
    picture = Image.new("RGB", sheet.size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _title(draw, vcu, sheet)
    top = TITLE + PAD // 2
    for column, index in enumerate(moments(vcu.num_frames, columns)):
        x = PAD + column * (sheet.width + GAP)
        picture.paste(frame_picture(vcu, index, (sheet.height, sheet.width)), (x, top))
        draw.text((x, top + sheet.height + 2), str(index), fill=FAINT, font=_font(11))
    for number, image in enumerate(vcu.references):
        x = sheet.left + number * (sheet.width + GAP)
        picture.paste(reference_picture(image, (sheet.height, sheet.width)), (x, top))
        draw.text((x, top + sheet.height + 2), f"reference {number + 1}", fill=FAINT, font=_font(11))
    _bar(draw, vcu, sheet, top + sheet.height + LABEL)
    return torch.from_numpy(np.asarray(picture).copy()).float() / 255


def write_preview(vcu: VCU, path: str, columns: int = 6) -> None:
    """Draw a unit into a picture file.

    Args:
        vcu, columns: as in `preview`.
        path: .png, or another ending that Pillow writes; it is complete, or as before.
    Raises:
        ValueError: no picture has such an ending, or the file cannot be written.
    """
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{shown(path)} has no ending of a picture; give one such as unit.png")
    picture = Image.fromarray((preview(vcu, columns) * 255).round().to(torch.uint8).numpy())
    with new_file(Path(path)) as partial:
        picture.save(partial, format=kind)


def _title(draw: ImageDraw.ImageDraw, vcu: VCU, sheet: _Sheet) -> None:
    kinds = dict.fromkeys(part.kind for part in vcu.parts or (vcu,))
    parts = [kind for kind in kinds if kind != "generate" or len(kinds) == 1]
    if vcu.references:
        count = len(vcu.references)
        parts.append(counted(count, "reference"))
    title = f"{' + '.join(parts)}   {vcu.width}x{vcu.height}, {counted(vcu.num_frames, 'frame')}"
    if vcu.strength != 1:
        title += f", strength {strength_shown(vcu.strength)}"
    if vcu.step_range != ALL_STEPS:
        title += f", {percents(vcu.step_range)} of the steps"
    draw.text((PAD, 8), title, fill=TEXT, font=_font(13))
    x = sheet.size[0] - PAD
    if x < max(560, PAD + draw.textlength(title, font=_font(13)) + LEGEND):
        return
    for word, color in (("free", GENERATE), ("guided", GUIDE), ("kept", KEEP)):
        x -= round(draw.textlength(word, font=_font(11)))
        draw.text((x, 9), word, fill=FAINT, font=_font(11))
        draw.rectangle((x - 13, 12, x - 5, 20), fill=color)
        x -= 26


def _bar(draw: ImageDraw.ImageDraw, vcu: VCU, sheet: _Sheet, top: int) -> None:
    """All frames, beneath the shown ones."""
    total = vcu.num_frames
    columns = ((index, index / total, (index + 1) / total) for index in steps(range(total)))
    draw_bar(draw, vcu, (PAD, top, PAD + sheet.columns * (sheet.width + GAP) - GAP, top + STRIP), columns)


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)
