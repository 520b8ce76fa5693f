"""Draws a unit: its frames over time, generated regions hatched, and the references next to them.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..memory import RGB, check_size
from ..progress import steps
from ..text import counted
from .checks import whole
from .unit import GRAY, VCU, dense

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MAX_COLUMNS = 24
CELL_AREA = 150 * 150
GAP, PAD, TITLE, LABEL, STRIP = 6, 12, 26, 17, 9
BACKGROUND, TEXT, FAINT = (24, 24, 27), (228, 228, 231), (139, 139, 148)
GENERATE, KEEP, GUIDE = (245, 158, 11), (45, 178, 160), (96, 140, 246)
HATCH_PERIOD, HATCH_WIDTH = 11, 3


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
    for column, index in enumerate(_moments(vcu.num_frames, columns)):
        x = PAD + column * (sheet.width + GAP)
        picture.paste(_frame(vcu, index, sheet), (x, top))
        draw.text((x, top + sheet.height + 2), str(index), fill=FAINT, font=_font(11))
    for number, image in enumerate(vcu.references):
        x = sheet.left + number * (sheet.width + GAP)
        picture.paste(_reference(image, sheet), (x, top))
        draw.text((x, top + sheet.height + 2), f"reference {number + 1}", fill=FAINT, font=_font(11))
    _strip(draw, vcu, sheet, top + sheet.height + LABEL)
    return torch.from_numpy(np.asarray(picture).copy()).float() / 255


def write_preview(vcu: VCU, path: str, columns: int = 6) -> None:
    """Draw a unit into a picture file.

    Args:
        vcu, columns: as in `preview`.
        path: .png, or another ending that Pillow writes.
    """
    from PIL import Image

    Image.fromarray((preview(vcu, columns) * 255).round().to(torch.uint8).numpy()).save(path)


def _moments(num_frames: int, columns: int) -> list[int]:
    """Frame numbers spread over the video, both ends among them."""
    return np.linspace(0, num_frames - 1, columns).round().astype(int).tolist()


def _title(draw: ImageDraw.ImageDraw, vcu: VCU, sheet: _Sheet) -> None:
    kinds = dict.fromkeys(part.kind for part in vcu.parts or (vcu,))
    parts = [kind for kind in kinds if kind != "generate" or len(kinds) == 1]
    if vcu.references:
        count = len(vcu.references)
        parts.append(counted(count, "reference"))
    title = f"{' + '.join(parts)}   {vcu.width}x{vcu.height}, {counted(vcu.num_frames, 'frame')}"
    if isinstance(vcu.strength, tuple):
        title += f", strength {min(vcu.strength):g} to {max(vcu.strength):g}"
    elif vcu.strength != 1:
        title += f", strength {vcu.strength:g}"
    draw.text((PAD, 8), title, fill=TEXT, font=_font(13))
    x = sheet.size[0] - PAD
    if x < 560:
        return
    for word, color in (("free", GENERATE), ("guided", GUIDE), ("kept", KEEP)):
        x -= round(draw.textlength(word, font=_font(11)))
        draw.text((x, 9), word, fill=FAINT, font=_font(11))
        draw.rectangle((x - 13, 12, x - 5, 20), fill=color)
        x -= 26


def _frame(vcu: VCU, index: int, sheet: _Sheet) -> Image.Image:
    """One frame with its mask hatched over it."""
    size = (sheet.height, sheet.width)
    pixels = _scaled(vcu.frames[index], size)
    mask = _nearest(vcu.masks[index] > 0.5, size)
    unknown = _nearest((vcu.frames[index] - GRAY).abs().amax(-1) < 1e-3, size)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    stripe = ((x + y) % HATCH_PERIOD < HATCH_WIDTH).float()
    sparse = ((x + y) % (3 * HATCH_PERIOD) < 2).float()
    alpha = mask * torch.where(unknown > 0, 0.12 + 0.5 * stripe, 0.22 * sparse)
    color = torch.tensor(GENERATE) / 255
    return _to_image(pixels + alpha[..., None] * (color - pixels))


def _reference(image: Tensor, sheet: _Sheet) -> Image.Image:
    """A reference on its white canvas."""
    from .scaling import letterbox

    scale = min(sheet.height / image.shape[0], sheet.width / image.shape[1])
    size = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    return _to_image(letterbox(_scaled(image, size), sheet.width, sheet.height))


def _strip(draw: ImageDraw.ImageDraw, vcu: VCU, sheet: _Sheet, top: int) -> None:
    """One bar for each frame: how much of it is kept, guided and free."""
    left, right = PAD, PAD + sheet.columns * (sheet.width + GAP) - GAP
    highest = max(max(vcu.strengths), 1e-6) if isinstance(vcu.strength, tuple) else None
    for index in steps(range(vcu.num_frames)):
        x0 = left + (right - left) * index / vcu.num_frames
        x1 = left + (right - left) * (index + 1) / vcu.num_frames
        bar = STRIP
        if highest is not None:
            bar = max(1, round(STRIP * vcu.strengths[(index + 3) // 4] / highest))
        y = float(top + STRIP - bar)
        for share, color in zip(_shares(vcu, index), (KEEP, GUIDE, GENERATE), strict=True):
            if share > 0:
                draw.rectangle((x0, y, max(x0, x1 - 1), y + share * bar), fill=color)
                y += share * bar


def _shares(vcu: VCU, index: int) -> tuple[float, float, float]:
    """Parts of a frame that are kept, guided and free."""
    masked = dense(vcu.masks[index]) > 0.5
    guided_pixels = (dense(vcu.frames[index]) - GRAY).abs().amax(-1) >= 1e-3
    generated = float(masked.float().mean())
    guided = float((masked & guided_pixels).float().mean())
    if generated - guided < 0.01:  # gray that a control happens to hold
        guided = generated
    return 1 - generated, guided, generated - guided


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W, 3] -> [*size, 3]: smooth when shrunk, crisp when enlarged."""
    image = rearrange(image.detach().float().cpu(), "h w c -> 1 c h w")
    shrunk = size[0] < image.shape[2]
    image = F.interpolate(image, size=size, mode="bicubic", antialias=shrunk)
    return rearrange(image, "1 c h w -> h w c").clamp(0, 1)


def _nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(mask.detach().float().cpu()[None, None], size=size, mode="nearest-exact")[0, 0]


def _to_image(pixels: Tensor) -> Image.Image:
    from PIL import Image

    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)
