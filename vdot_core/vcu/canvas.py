"""Checks of clips, and the model's canvas for them: sizes in multiples of 16, lengths 4n+1, with notes.

Shape letters: F pixel frames, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..scratch import converted, extremes
from ..text import counted
from .checks import MAX_FRAMES, MAX_SIDE, as_tensor, whole
from .unit import SIZE_MULTIPLE, VAE_STRIDE

# Bicubic scaling by other nodes overshoots a little; more than this is a wrong range, not an overshoot.
OVERSHOOT = 0.1
# Of bright lines on black: levels, and parts of the picture or of the lines.
GRAY_SPREAD, LINE_LEVEL, BLACK_LEVEL = 0.05, 0.5, 0.1
MOST_LINES, MOST_LIT, WIDE_PART = 0.3, 0.4, 0.05


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
        most = 255.0 if values.dtype == torch.uint8 else 1.0
        return converted(values, lambda part: part.float() / most), []
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds {kind} numbers, expected float in [0, 1] or uint8; convert it")
    low, high = extremes(values)
    if low >= 0 and high <= 1:
        return values if values.dtype == torch.float32 else converted(values, Tensor.float), []
    if low != low:
        raise ValueError(f"{name} holds NaN; expected numbers in [0, 1]. Look at the node that made it")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"{name} ranges from {low:.4g} to {high:.4g}, expected [0, 1]; "
            "divide 0..255 by 255, map -1..1 by (x + 1) / 2"
        )
    notes = [f"{name}: values {low:.3f}..{high:.3f} clipped to 0..1"]
    return converted(values, lambda part: part.float().clamp(0, 1)), notes


def find_flat(clip: Tensor, name: str) -> list[str]:
    """A note where every frame [H, W, 3] of a clip is of one color, as what a failed node gives."""
    if not all(bool((frame == frame[0, 0]).all()) for frame in clip):
        return []
    where = "in every frame" if len(clip) > 1 else "everywhere"
    return [f"{name} shows one color {where}, and nothing else; look at the node that made it"]


def find_bright_lines(clip: Tensor, name: str) -> list[str]:
    """A note where a clip [F, H, W, 3] shows thin bright lines on black, as edge detectors draw them."""
    picks = {round(place * (len(clip) - 1)) for place in (0, 1 / 3, 2 / 3, 1)}
    if not all(_is_bright_lines(clip[index]) for index in picks):
        return []
    return [
        f"{name} shows bright lines on black; if they are a scribble (Canny, line art), the model knows dark "
        "lines on white: put Invert Image in front"
    ]


def _is_bright_lines(frame: Tensor) -> bool:
    """True for a gray frame [H, W, 3], mostly black, in which nothing bright is wider than a line."""
    red, green, blue = frame.float().unbind(-1)
    lit, bright = frame.amax(-1) > BLACK_LEVEL, green > LINE_LEVEL
    share = float(bright.float().mean())
    if not 0 < share < MOST_LINES or float(lit.float().mean()) > MOST_LIT:
        return False
    if float(torch.maximum((red - green).abs(), (blue - green).abs())[lit].mean()) > GRAY_SPREAD:
        return False
    reach = max(3, round(min(green.shape) / 60))
    dark = torch.nn.functional.max_pool2d((~bright).float()[None], 2 * reach + 1, 1, reach)[0]
    return float((dark == 0).float().mean()) < WIDE_PART * share


def snap_size(width: int, height: int) -> tuple[int, int]:
    """The largest size in multiples of 16 that fits inside, at least 16x16."""
    width, height = whole("width", width), whole("height", height)
    if width < 1 or height < 1:
        raise ValueError(
            f"the video's size is {width}x{height}, expected at least {SIZE_MULTIPLE}x{SIZE_MULTIPLE}; "
            "give a larger width and height"
        )
    if max(width, height) > MAX_SIDE:
        raise ValueError(
            f"the video's size is {width}x{height}, expected at most {MAX_SIDE} a side; give a smaller width "
            "and height"
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
