"""A small picture of a unit for the node that made it: moments of its frames, its references, its bar."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .canvas import as_clip
from .drawing import draw_bar, frame_picture, moments, reference_picture, window_picture
from .unit import VCU, num_latent_frames

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from .crop import Crop

WIDTH, MAX_CELL_HEIGHT, GAP, BAR = 480, 104, 4, 6
MAX_FRAMES, MAX_REFERENCES = 6, 3
MAX_COLUMNS, SAMPLES = 120, 40
QUALITY = 78


@dataclass(frozen=True)
class Strip:
    """A drawn unit.

    Attributes:
        webp: the picture, a row of cells of equal width above a bar.
        frames: numbers of the frames shown, in order; the references follow.
        num_references: number of references shown.
    """

    webp: bytes
    frames: tuple[int, ...]
    num_references: int


def strip(vcu: VCU) -> Strip:
    """Draw a unit at most 480 pixels wide, with the colors and hatching of `preview`.

    Args:
        vcu: the unit. At most three of its references are shown; the bar samples pixels and frames.
    """
    from PIL import ImageDraw

    references = vcu.references[:MAX_REFERENCES]
    shown = tuple(moments(vcu.num_frames, min(vcu.num_frames, MAX_FRAMES - min(len(references), 2))))
    size = _cell(vcu, len(shown) + len(references))
    cells = [frame_picture(vcu, index, size, period=8) for index in shown]
    cells += [reference_picture(image, size) for image in references]
    picture = _row(cells, below=GAP + BAR)
    box = (0, size[0] + GAP, len(shown) * (size[1] + GAP) - GAP - 1, picture.height - 1)
    stride = max(1, math.isqrt(vcu.width * vcu.height) // SAMPLES)
    draw_bar(ImageDraw.Draw(picture), vcu, box, _columns(vcu.num_frames), stride)
    return Strip(_webp(picture), shown, len(references))


def window_strip(frames: Tensor, mask: Tensor, crop: Crop) -> Strip:
    """Draw the window that was cut out of a clip, on its first, middle and last frame.

    Args:
        frames: as `crop_region` takes them.
        mask: [F, H, W], or [1, H, W] for every frame.
        crop: of `crop_region`.
    """
    shown = tuple(dict.fromkeys(moments(len(frames), 3)))
    width, height = crop.source
    scale = min(((WIDTH + GAP) / 3 - GAP) / width, MAX_CELL_HEIGHT / height)
    size = max(8, round(height * scale)), max(8, round(width * scale))
    pictures, _ = as_clip(frames[list(shown)])
    cells = [
        window_picture(picture, mask[min(index, len(mask) - 1)], crop, size)
        for index, picture in zip(shown, pictures, strict=True)
    ]
    return Strip(_webp(_row(cells)), shown, 0)


def _row(cells: list[Image.Image], below: int = 0) -> Image.Image:
    """Cells next to each other on a transparent ground, with so many free pixels below."""
    from PIL import Image

    width, height = cells[0].size
    row = Image.new("RGBA", (len(cells) * (width + GAP) - GAP, height + below), (0, 0, 0, 0))
    for number, cell in enumerate(cells):
        row.paste(cell, (number * (width + GAP), 0))
    return row


def _webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=0)
    return file.getvalue()


def _cell(vcu: VCU, num_cells: int) -> tuple[int, int]:
    """Height and width of a cell: the video's shape, as large as the row allows."""
    width = (WIDTH + GAP) / max(num_cells, 4) - GAP
    scale = min(width / vcu.width, MAX_CELL_HEIGHT / vcu.height)
    return max(8, round(vcu.height * scale)), max(8, round(vcu.width * scale))


def _columns(num_frames: int) -> list[tuple[int, float, float]]:
    """A frame of each latent frame, the last of its four, and its place; of a long video, some of them."""
    groups = num_latent_frames(num_frames)
    chosen = moments(groups, min(groups, MAX_COLUMNS))
    ends = [(1 + 4 * group) / num_frames for group in chosen]
    begins = [0.0, *ends[:-1]]
    return [(4 * group, begin, end) for group, begin, end in zip(chosen, begins, ends, strict=True)]
