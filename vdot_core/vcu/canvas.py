"""Fitting any clip or image to the model's canvas: sizes in multiples of 16,
lengths 4n+1; every change is noted.

Shape letters: F pixel frames, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..memory import check_size, chunk_length
from ..progress import steps
from ..text import counted
from .checks import MAX_FRAMES, MAX_PIXELS, MAX_SIDE, as_tensor, whole
from .unit import GRAY, SIZE_MULTIPLE, VAE_STRIDE

# Bicubic scaling by other nodes overshoots a little; more than this is a wrong range, not an overshoot.
OVERSHOOT = 0.1
FRAMES_PER_CHUNK = 8


@dataclass(frozen=True)
class Length:
    """The length of a video, and the frames taken from its clip.

    Args:
        total: frames of the video, 4n+1.
        used: frames taken from the clip's start; the rest of `total` is left free.
        notes: what was dropped or left free.
    """

    total: int
    used: int
    notes: tuple[str, ...]


def as_clip(frames: Tensor, name: str = "frames") -> tuple[Tensor, list[str]]:
    """Bring images to [F, H, W, 3] float32 in [0, 1].

    Args:
        frames: [F, H, W, C] or one image [H, W, C], C = 1, 3 or 4; float in [0, 1] or uint8; numpy works too.
        name: its name in errors.
    Returns:
        The clip, and notes on what was changed.
    Raises:
        ValueError: shape, dtype or range is wrong, or it holds NaN.
    """
    frames = as_tensor(frames, name, "[F, H, W, 3] float in [0, 1]")
    if frames.ndim == 3 and frames.shape[-1] in (1, 3, 4):
        frames = frames[None]
    if frames.ndim != 4:
        raise ValueError(
            f"{name} has shape {list(frames.shape)}, expected [F, H, W, 3] (or one image [H, W, 3]); "
            "give colors last"
        )
    if frames.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{name} has {counted(frames.shape[-1], 'channel')}, expected red, green and blue last (or gray, "
            "or with alpha); look at the node that made it"
        )
    if frames.numel() == 0:
        raise ValueError(f"{name} is empty (shape {list(frames.shape)}); give at least one frame")
    notes = []
    if frames.shape[-1] == 4:
        frames = frames[..., :3]
        notes.append(f"{name}: alpha channel ignored")
    frames, clipped = to_unit_range(frames, name)
    if frames.shape[-1] == 1:
        frames = frames.expand(*frames.shape[:3], 3)
    return frames, notes + clipped


def to_unit_range(values: Tensor, name: str) -> tuple[Tensor, list[str]]:
    """Bring values to float32 in [0, 1]: uint8 is divided by 255, small overshoot clipped, more refused."""
    if values.dtype in (torch.uint8, torch.bool):
        return values.float() / (255.0 if values.dtype == torch.uint8 else 1.0), []
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds {kind} numbers, expected float in [0, 1] or uint8; convert it")
    values = values.float()
    low, high = (float(v) for v in torch.aminmax(values.detach()))
    if low >= 0 and high <= 1:
        return values, []
    if low != low:
        raise ValueError(f"{name} holds NaN; expected numbers in [0, 1]. Look at the node that made it")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"{name} ranges from {low:.4g} to {high:.4g}, expected [0, 1]; "
            "divide 0..255 by 255, map -1..1 by (x + 1) / 2"
        )
    return values.clamp(0, 1), [f"{name}: values {low:.3f}..{high:.3f} clipped to 0..1"]


def snap_size(width: int, height: int) -> tuple[int, int]:
    """The largest size in multiples of 16 that fits inside, at least 16x16."""
    width, height = whole("width", width), whole("height", height)
    if width < 1 or height < 1:
        raise ValueError(
            f"size is {width}x{height}, expected at least {SIZE_MULTIPLE}x{SIZE_MULTIPLE}; "
            "give a larger width and height"
        )
    if max(width, height) > MAX_SIDE:
        raise ValueError(
            f"size is {width}x{height}, expected at most {MAX_SIDE} a side; give a smaller width and height"
        )
    return tuple(max(SIZE_MULTIPLE, side // SIZE_MULTIPLE * SIZE_MULTIPLE) for side in (width, height))


def snap_length(num_frames: int) -> int:
    """The longest length 4n+1 that fits inside."""
    num_frames = whole("num_frames", num_frames)
    if not 1 <= num_frames <= MAX_FRAMES:
        raise ValueError(
            f"length is {counted(num_frames, 'frame')}, expected 1 to {MAX_FRAMES}; give another length"
        )
    return (num_frames - 1) // VAE_STRIDE[0] * VAE_STRIDE[0] + 1


def rounded_length(num_frames: int) -> tuple[int, list[str]]:
    """`snap_length`, and a note where that is another length."""
    total = snap_length(num_frames)
    return total, [] if total == num_frames else [f"length {num_frames} -> {counted(total, 'frame')} (4n+1)"]


@contextmanager
def rounding_named(notes: Sequence[str]) -> Iterator[None]:
    """Add to a refusal how size and length were rounded: it counts in the rounded ones.

    Args:
        notes: of the builder, so far.
    Raises:
        ValueError: what the block raises, with the notes on size and length.
    """
    try:
        yield
    except ValueError as error:
        rounded = [note for note in notes if note.startswith(("length ", "size "))]
        if not rounded:
            raise
        raise ValueError(f"{error} ({'; '.join(rounded)})") from error


def target_size(source: tuple[int, int], width: int | None, height: int | None) -> tuple[int, int, list[str]]:
    """Choose the canvas for a source (width, height) and what was asked for; one None keeps the aspect."""
    requested = (width, height)
    if width is None and height is None:
        return (*snap_size(*source), [])
    width = None if width is None else whole("width", width)
    height = None if height is None else whole("height", height)
    if width is None:
        width = max(1, round(source[0] * height / source[1]))
    if height is None:
        height = max(1, round(source[1] * width / source[0]))
    snapped = snap_size(width, height)
    notes = []
    if any(want is not None and want != got for want, got in zip(requested, snapped, strict=True)):
        notes.append(f"size {width}x{height} -> {snapped[0]}x{snapped[1]} (multiples of {SIZE_MULTIPLE})")
    return (*snapped, notes)


def target_length(available: int, requested: int | None, name: str = "frames") -> Length:
    """Choose the length for a clip and what was asked for.

    A clip that is too long loses frames at its end. One that is shorter than asked leaves the rest free.
    """
    total, notes = rounded_length(available if requested is None else requested)
    notes = [] if requested is None else notes
    used = min(available, total)
    if used < available:
        notes.append(
            f"{name}: {counted(available, 'frame')} -> {used} (dropped {available - used} at the end)"
        )
    if used < total:
        free = "the last one is" if total - used == 1 else f"the last {total - used} are"
        notes.append(f"{name}: {counted(available, 'frame')} for {total}; {free} left free")
    return Length(total, used, tuple(notes))


def cover(frames: Tensor, width: int, height: int) -> Tensor:
    """Scale to cover the canvas and crop the center: VACE's rule for videos and their masks.

    Args:
        frames: [F, H, W, C] float in [0, 1].
        width, height: the canvas.
    Returns:
        [F, height, width, C] in [0, 1]; the input itself where it already fits. Bicubic with antialias.
    """
    old_height, old_width = frames.shape[1:3]
    if (old_height, old_width) == (height, width):
        return frames
    new_width, new_height = cover_size((old_width, old_height), width, height)
    frames = resample(frames, new_width, new_height)
    top, left = (new_height - height) // 2, (new_width - width) // 2
    return frames[:, top : top + height, left : left + width].contiguous()


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
    if frames.shape[1:3] == (height, width):
        return frames
    total, old_height, old_width, channels = frames.shape
    length = chunk_length(height * width, FRAMES_PER_CHUNK)
    check_size(
        (total + 2 * length) * height * width * channels * frames.element_size(),
        f"scaling {counted(total, 'frame')} of {old_width}x{old_height} to {width}x{height}",
        "give a smaller width or height, or fewer frames",
    )
    out = frames.new_empty(total, height, width, channels)
    for start in steps(range(0, total, length)):
        chunk = rearrange(frames[start : start + length], "f h w c -> f c h w")
        chunk = F.interpolate(chunk, size=(height, width), mode="bicubic", antialias=True)
        out[start : start + length] = rearrange(chunk.clamp(0, 1), "f c h w -> f h w c")
    return out


def fit_frames(clip: Tensor, width: int, height: int, name: str = "frames") -> tuple[Tensor, list[str]]:
    """`cover` with a note of what it did."""
    old_height, old_width = clip.shape[1:3]
    if (old_width, old_height) == (width, height):
        return clip, []
    scaled = cover_size((old_width, old_height), width, height)
    changes = []
    if scaled != (old_width, old_height):
        changes.append(f"scaled to {scaled[0]}x{scaled[1]}")
    if scaled != (width, height):
        changes.append(f"cropped to {width}x{height}")
    return cover(clip, width, height), [f"{name}: {old_width}x{old_height} {' and '.join(changes)}"]


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
    return torch.cat(parts)


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
