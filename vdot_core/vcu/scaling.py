"""Scaling clips and images to the canvas, a few frames at a time.

Shape letters: F pixel frames, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..memory import check_size, chunk_length
from ..progress import steps
from ..scratch import empty, joined
from ..text import counted
from .checks import MAX_PIXELS
from .unit import GRAY

FRAMES_PER_CHUNK = 2


def cover(frames: Tensor, width: int, height: int) -> Tensor:
    """Scale to cover the canvas and crop the center: VACE's rule for videos and their masks.

    Args:
        frames: [F, H, W, C] float in [0, 1].
        width, height: the canvas.
    Returns:
        [F, height, width, C] in [0, 1]; the input itself where it already fits. Bicubic with antialias.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    out = empty((frames.shape[0], height, width, frames.shape[3]), frames.device)
    fill_cover(out, frames)
    return out


def fill_cover(out: Tensor, frames: Tensor) -> None:
    """Write what `cover` gives into [F, height, width, C], without a copy of the clip's size."""
    height, width = out.shape[1:3]
    size = frames.shape[2], frames.shape[1]
    size = size if size == (width, height) else cover_size(size, width, height)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    visible = slice(top, top + height), slice(left, left + width)
    for part, chunk in scaled_chunks(frames, *size, visible):
        out[part] = chunk


def cover_size(source: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Size (width, height) to scale a source to so that it covers the canvas."""
    scale = max(width / source[0], height / source[1])
    covering = max(width, round(scale * source[0])), max(height, round(scale * source[1]))
    if covering[0] * covering[1] > MAX_PIXELS // 8:
        raise ValueError(
            f"frames of {source[0]}x{source[1]} would have to be scaled to {covering[0]}x{covering[1]} to "
            f"cover {width}x{height}; crop them to a shape nearer to the video's first"
        )
    return covering


def resample(frames: Tensor, width: int, height: int) -> Tensor:
    """Bicubic, antialiased scaling of [F, H, W, C] in [0, 1]; a few frames at a time, to spare memory."""
    total, old_height, old_width, channels = frames.shape
    if (old_height, old_width) == (height, width):
        return frames
    check_size(
        total * height * width * channels * frames.element_size(),
        f"scaling {counted(total, 'frame')} of {old_width}x{old_height} to {width}x{height}",
        "give a smaller width or height, or fewer frames",
    )
    out = empty((total, height, width, channels), frames.device)
    for part, chunk in scaled_chunks(frames, width, height):
        out[part] = chunk
    return out


def scaled_chunks(
    frames: Tensor, width: int, height: int, visible: tuple[slice, slice] = (slice(None), slice(None))
) -> Iterator[tuple[slice, Tensor]]:
    """`resample` for those who need a few frames at a time.

    Args:
        frames: [F, H, W, C] float in [0, 1].
        width, height: size to scale to.
        visible: the rows and columns of that size that are wanted; others are not computed where possible.
    Yields:
        Which frames, and these [f, height, width, C]; parts of the input where nothing is to be scaled.
    """
    same = frames.shape[1:3] == (height, width)
    length = chunk_length(height * width, FRAMES_PER_CHUNK)
    check_size(
        0 if same else 3 * length * height * width * frames.shape[3] * frames.element_size(),
        f"scaling a frame of {frames.shape[2]}x{frames.shape[1]} to {width}x{height}",
        "give a smaller width or height",
    )
    total = frames.shape[0]
    for start in steps(range(0, total, length)):
        part = slice(start, min(total, start + length))
        chunk = frames[part]
        if not same:
            chunk = rearrange(chunk, "f h w c -> f c h w")
            # Along each axis separately, as torch does it, but without the columns that are cut off.
            chunk = _bicubic(chunk, frames.shape[1], width)[..., visible[1]]
            chunk = _bicubic(chunk, height, chunk.shape[3])
            chunk = rearrange(chunk.clamp_(0, 1), "f c h w -> f h w c")
        yield part, chunk[:, visible[0], visible[1]] if same else chunk[:, visible[0]]


def _bicubic(chunk: Tensor, height: int, width: int) -> Tensor:
    """Scale [f, c, h, w]; a copy where nothing changes."""
    return F.interpolate(chunk, size=(height, width), mode="bicubic", antialias=True)


def fit_into(
    clip: Tensor, width: int, height: int, total: int, name: str = "frames"
) -> tuple[Tensor, list[str]]:
    """Copy a clip to the start of a new one, with `cover`; the frames after it are gray.

    Args:
        clip: [F, H, W, 3], at most `total` frames.
        width, height: the canvas.
        total: frames of the result.
        name: what to call the clip in messages.
    Returns:
        [total, height, width, 3], and notes.
    """
    out = empty((total, height, width, clip.shape[3]), clip.device)
    fill_cover(out[: len(clip)], clip)
    out[len(clip) :] = GRAY
    return out, fit_notes(clip, width, height, name)


def fit_notes(clip: Tensor, width: int, height: int, name: str) -> list[str]:
    """Notes on how `cover` changes a clip; none where it fits."""
    old_height, old_width = clip.shape[1:3]
    if (old_width, old_height) == (width, height):
        return []
    scaled = cover_size((old_width, old_height), width, height)
    changes = []
    if scaled != (old_width, old_height):
        changes.append(f"scaled to {scaled[0]}x{scaled[1]}")
    if scaled != (width, height):
        changes.append(f"cropped to {width}x{height}")
    return [f"{name}: {old_width}x{old_height} {' and '.join(changes)}"]


def lengthen(clip: Tensor, total: int, fill: float | str, upto: int | None = None) -> Tensor:
    """Append frames to [F, ...]: filled with a number, or 'hold': the last one up to `upto`, then gray."""
    missing = total - clip.shape[0]
    if missing <= 0:
        return clip[:total]
    num_held = 0
    if fill == "hold":
        num_held = min(total, upto or total) - clip.shape[0]
        fill = GRAY
    parts = [clip]
    if num_held > 0:
        parts.append(clip[-1:].expand(num_held, *clip.shape[1:]))
    if missing > num_held:
        parts.append(clip.new_full((1,) * clip.ndim, fill).expand(missing - num_held, *clip.shape[1:]))
    return joined(parts)


def letterbox(image: Tensor, width: int, height: int) -> Tensor:
    """Fit an image onto the center of a white canvas, aspect kept: VACE's rule for references.

    Args:
        image: [H, W, 3] float in [0, 1].
        width, height: the canvas.
    Returns:
        [height, width, 3]; bilinear without antialias, as VACE was trained. The input itself where it already
        fits.
    """
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image
    scale = min(height / old_height, width / old_width)
    new_height, new_width = max(1, int(old_height * scale)), max(1, int(old_width * scale))
    scaled = F.interpolate(
        rearrange(image, "h w c -> 1 c h w"),
        size=(new_height, new_width),
        mode="bilinear",
        align_corners=False,
    )
    canvas = image.new_ones(height, width, 3)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = rearrange(
        scaled.clamp(0, 1), "1 c h w -> h w c"
    )
    return canvas
