"""Pictures of a unit's parts: a frame with its mask, a reference, and the bar that sums up every frame.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .unit import GRAY, VCU, dense

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from .crop import Crop

GENERATE, KEEP, GUIDE = (245, 158, 11), (45, 178, 160), (96, 140, 246)
HATCH_PERIOD, HATCH_WIDTH = 11, 3
# Gray that nothing was written into; VACE's neutral value.
UNKNOWN_TOLERANCE = 1e-3
OVERSAMPLING = 4  # pixels of a frame that are read for a side of one that is drawn


def moments(num_frames: int, count: int) -> list[int]:
    """Frame numbers spread over the video, both ends among them."""
    return np.linspace(0, num_frames - 1, count).round().astype(int).tolist()


def frame_picture(vcu: VCU, index: int, size: tuple[int, int], period: int = HATCH_PERIOD) -> Image.Image:
    """One frame at `size` (height, width), its mask hatched: densely where nothing is known, else lightly."""
    frame = vcu.frames[index]
    mask = _nearest(vcu.masks[index], size) > 0.5
    unknown = np.abs(_nearest(frame, size) - GRAY).max(-1) < UNKNOWN_TOLERANCE
    return _hatched(_scaled(frame, size), mask, unknown, period)


def window_picture(frame: Tensor, mask: Tensor, crop: Crop, size: tuple[int, int]) -> Image.Image:
    """A clip's frame at `size` (height, width) with the window of a crop, and [H, W] of its mask hatched."""
    from PIL import ImageDraw, ImageEnhance

    masked = _nearest(mask, size) > 0.5
    picture = _hatched(_scaled(frame, size), masked, np.ones(size, dtype=bool), period=8)
    x, y = size[1] / crop.source[0], size[0] / crop.source[1]
    left, top = round(crop.left * x), round(crop.top * y)
    right, bottom = round((crop.left + crop.width) * x), round((crop.top + crop.height) * y)
    dimmed = ImageEnhance.Brightness(picture).enhance(0.4)
    dimmed.paste(picture.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dimmed).rectangle((left, top, right - 1, bottom - 1), outline=KEEP, width=2)
    return dimmed


def reference_picture(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """A reference on a white canvas of `size` (height, width)."""
    from .scaling import letterbox

    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    fitted = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    pixels = torch.from_numpy(np.asarray(_scaled(image, fitted)).copy()).float() / 255
    return _to_image(letterbox(pixels, size[1], size[0]).numpy() * 255)


def draw_bar(
    draw: ImageDraw.ImageDraw,
    vcu: VCU,
    box: tuple[int, int, int, int],
    frames: Iterable[tuple[int, float, float]],
    stride: int = 1,
) -> None:
    """A column for each frame: green is kept, blue is guided, amber is free.

    Args:
        box: left, top, right and bottom of the bar; where the strength differs between latent frames, a
            column's height is the strength.
        frames: number, and begin and end as parts of the video's length.
        stride: of the pixels that are looked at.
    """
    left, top, right, bottom = box
    highest = max(max(vcu.strengths), 1e-6) if isinstance(vcu.strength, tuple) else None
    for index, begin, end in frames:
        x0, x1 = left + (right - left) * begin, left + (right - left) * end
        height = bottom - top
        if highest is not None:
            height = max(1, round(height * vcu.strengths[(index + 3) // 4] / highest))
        y = float(bottom - height)
        for share, color in zip(_shares(vcu, index, stride), (KEEP, GUIDE, GENERATE), strict=True):
            if share > 0:
                draw.rectangle((x0, y, max(x0, x1 - 1), y + share * height), fill=color)
                y += share * height


def _hatched(picture: Image.Image, mask: np.ndarray, unknown: np.ndarray, period: int) -> Image.Image:
    """Amber stripes over a mask, dense where nothing is known."""
    diagonal = np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1]))
    stripe = diagonal % period < period * HATCH_WIDTH / HATCH_PERIOD
    sparse = diagonal % (3 * period) < 2
    alpha = mask * np.where(unknown, 0.12 + 0.5 * stripe, 0.22 * sparse)
    pixels = np.asarray(picture, dtype=np.float32)
    return _to_image(pixels + alpha[..., None] * (np.array(GENERATE) - pixels))


def _shares(vcu: VCU, index: int, stride: int) -> tuple[float, float, float]:
    """Parts of a frame that are kept, guided and free."""
    mask, frame = (dense(part[index])[::stride, ::stride].cpu().numpy() for part in (vcu.masks, vcu.frames))
    masked = mask > 0.5
    guided_pixels = (np.abs(frame - GRAY) >= UNKNOWN_TOLERANCE).any(-1)
    generated = float(masked.mean())
    guided = float((masked & guided_pixels).mean())
    if generated - guided < 0.01:  # gray that a control happens to hold
        guided = generated
    return 1 - generated, guided, generated - guided


def _scaled(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """[H, W, 3] in [0, 1] -> a picture of `size`."""
    from PIL import Image

    rows, columns = (
        max(1, side // (OVERSAMPLING * new)) for side, new in zip(image.shape[:2], size, strict=True)
    )
    pixels = image.detach()[::rows, ::columns].float().cpu().numpy()
    picture = _to_image(pixels * 255)
    return picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _nearest(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The pixels [*size, ..] at the middles of as many equal parts of an image [H, W, ..]."""
    rows, columns = (
        (2 * np.arange(new) + 1) * side // (2 * new) for side, new in zip(image.shape, size, strict=False)
    )
    return image.detach().float().cpu().numpy()[rows[:, None], columns]


def _to_image(pixels: np.ndarray) -> Image.Image:
    """[H, W, 3] in [0, 255], rounded."""
    from PIL import Image

    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8))
