"""The builder that keeps a clip and generates the area around it: outpaint.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..memory import MASK, RGB, check_size
from .canvas import as_clip, cover, cover_size, fit_frames, lengthen, resample, target_length, target_size
from .checks import MAX_SIDE, as_list, check_volume, described, real, whole
from .grow import mask_box
from .unit import GRAY, SIZE_MULTIPLE, VCU, built

MAX_RATIO = 8.0
CENTER = (0.5, 0.5)


@dataclass(frozen=True)
class Pads:
    """Pixels added on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self):
        for name in ("left", "right", "top", "bottom"):
            pixels = whole(name, getattr(self, name))
            if not 0 <= pixels <= MAX_SIDE:
                raise ValueError(f"{name} is {pixels} pixels, expected 0 or more, up to {MAX_SIDE}")
        if not self.left + self.right + self.top + self.bottom:
            raise ValueError(
                "nothing to outpaint: left, right, top and bottom are 0, and the shape that was asked for is "
                "the clip's; give one of them pixels, another aspect, or a width and height of another shape"
            )


def outpaint(
    frames: Tensor,
    *,
    left: int | float = 0,
    right: int | float = 0,
    top: int | float = 0,
    bottom: int | float = 0,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    strength: float | Sequence[float] = 1.0,
    aspect: float | str | None = None,
    anchor: tuple[float, float] = CENTER,
    feather_px: int = 0,
) -> VCU:
    """Keep a clip and generate a margin around it.

    The margin is given by its sides, or by the canvas that is to be filled: `aspect`, or `width` and `height`
    without any side.

    Args:
        frames: [F, H, W, 3] float in [0, 1], or one image for a single frame.
        left, right, top, bottom: margins: a whole number in the clip's own pixels, a float as a part of the
            clip's width or height (0.25 = a quarter). Without `width` and `height` the clip keeps its scale,
            and the margins grow to make the canvas a multiple of 16.
        width, height: canvas; clip and margins are scaled together to cover it. With neither side nor aspect
            given, the clip is scaled to fit inside it and the margins fill the rest; one of the two alone
            then leaves the other as the clip's own.
        num_frames: length; None = the clip's own. Frames beyond a shorter clip are generated.
        strength: scale of its context; see `VCU`.
        aspect: width by height of the canvas, 1.7778, '2.39' or '16:9': margins on two sides reach it.
        anchor: position of the clip in a canvas given by aspect or size: (0, 0) left or top, (1, 1) right or
            bottom.
        feather_px: how far, in pixels of the canvas, the mask reaches into the clip from every side that has
            a margin, so that the seam is regenerated. Masks are binarized when encoded, so this is VACE's
            mask blur, not a gradient; the covered pixels become gray.
    Raises:
        ValueError: no margin, a negative one, sides with an aspect, or a wrong shape, dtype or range.
    """
    clip, notes = as_clip(frames, "video")
    rows, columns = clip.shape[1:3]
    sides = {"left": _side("left", left, columns), "right": _side("right", right, columns)}
    sides |= {"top": _side("top", top, rows), "bottom": _side("bottom", bottom, rows)}
    if aspect is None and not any(sides.values()) and (width is None) != (height is None):
        width, height = (columns, height) if width is None else (width, rows)
    pads = _pads(clip, sides, aspect, anchor, width, height)
    feather_px = whole("feather_px", feather_px, 0, MAX_SIDE)
    length = target_length(clip.shape[0], num_frames, "video")
    notes += length.notes
    clip = clip[: length.used]
    # Frames and masks, once more where the mask grows into the clip.
    pixel_bytes = (RGB + MASK) * (2 if feather_px else 1)
    if width is None and height is None:
        padded = clip.shape[2] + pads.left + pads.right, clip.shape[1] + pads.top + pads.bottom
        check_volume(length.total, *padded, pixel_bytes)
        clip, more = _fit_unpadded_sides(clip, pads)
        pads, grown = _grow_pads(clip.shape[2], clip.shape[1], pads)
        clip, mask = _pad(clip, pads)
        notes += more + grown
    else:
        clip, mask, more = _pad_and_cover(clip, pads, width, height)
        check_volume(length.total, clip.shape[2], clip.shape[1], pixel_bytes)
        notes += more
    if feather_px:
        clip, mask = _feather(clip, mask, feather_px)
    return built(
        lengthen(clip, length.total, GRAY),
        lengthen(mask, length.total, 1.0),
        kind="repaint",
        strength=strength,
        notes=notes,
    )


def _pads(
    clip: Tensor,
    sides: dict[str, int],
    aspect: float | str | None,
    anchor: tuple[float, float],
    width: int | None,
    height: int | None,
) -> Pads:
    """Margins in the clip's pixels, from sides, aspect or size."""
    old_height, old_width = clip.shape[1:3]
    names = [name for name, value in sides.items() if value]
    if aspect is not None:
        if names:
            raise ValueError(f"aspect and {', '.join(names)} are given; give either the aspect or the sides")
        ratio = _aspect(aspect)
    elif not names and width is not None and height is not None:
        canvas = target_size((old_width, old_height), width, height)
        ratio = canvas[0] / canvas[1]
    else:
        return Pads(**sides)
    at = [real("anchor", part, 0.0, 1.0) for part in as_list(anchor, "anchor")]
    if len(at) != 2:
        raise ValueError(f"anchor has {len(at)} numbers, expected two; give (x, y), as (0.5, 0.5)")
    # One pixel less than the clip's own shape is rounding, not a margin.
    extra_x = max(0, math.ceil(old_height * ratio - 1e-6) - old_width)
    extra_y = max(0, math.ceil(old_width / ratio - 1e-6) - old_height)
    if extra_x > MAX_SIDE or extra_y > MAX_SIDE:
        raise ValueError(
            f"aspect {ratio:.4g} of a clip of {old_width}x{old_height} needs margins of "
            f"{max(extra_x, extra_y)} pixels, expected at most {MAX_SIDE}; "
            "give an aspect nearer to the clip's"
        )
    before_x, before_y = round(extra_x * at[0]), round(extra_y * at[1])
    return Pads(before_x, extra_x - before_x, before_y, extra_y - before_y)


def _side(name: str, value: int | float, length: int) -> int:
    """A margin in pixels; floats are a part of the clip's side."""
    if not isinstance(value, float):
        return whole(name, value)
    if not 0.0 <= value <= MAX_RATIO:
        raise ValueError(
            f"{name} is {100 * value:g} percent of the clip's side, expected 0 to {100 * MAX_RATIO:g}; give "
            "less, or a whole number of pixels"
        )
    return round(value * length)


def _aspect(value: float | str) -> float:
    """16:9, '16:9', '16/9', '16x9', '2.39', '2,39' or 1.7778 as a number."""
    if isinstance(value, str):
        try:
            parts = [float(part) for part in re.split("[:/x\u00d7]", value.lower().replace(",", "."))]
            across, down = [*parts, 1.0] if len(parts) == 1 else parts
            value = across / down
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(
                f"aspect is {described(value)}, expected two numbers or their ratio; "
                "give one like 16:9 or 2.39"
            ) from error
    return real("aspect", value, 1 / 64, 64.0)


def _feather(clip: Tensor, mask: Tensor, feather_px: int) -> tuple[Tensor, Tensor]:
    """Grow the mask into the kept rectangle from every side that has a margin."""
    height, width = mask.shape[1:]
    box = mask_box((mask[0] == 0).cpu().numpy())
    if box is None:
        raise ValueError("the margins leave nothing of the video on the canvas; give smaller ones")
    left, top, right, bottom = box
    inner_left, inner_top = left + feather_px * (left > 0), top + feather_px * (top > 0)
    inner_right, inner_bottom = right - feather_px * (right < width), bottom - feather_px * (bottom < height)
    if inner_left >= inner_right or inner_top >= inner_bottom:
        raise ValueError(
            f"feather_px is {feather_px}, and of the clip {right - left}x{bottom - top} are on the canvas; "
            "nothing would be kept. Give a smaller one"
        )
    mask = torch.ones_like(mask)
    mask[:, inner_top:inner_bottom, inner_left:inner_right] = 0.0
    return torch.where(mask[..., None] > 0, GRAY, clip), mask


def _fit_unpadded_sides(clip: Tensor, pads: Pads) -> tuple[Tensor, list[str]]:
    """A side without margin cannot grow to a multiple of 16, so the clip is fitted along it."""
    height, width = clip.shape[1:3]
    new_width = (
        width if pads.left + pads.right else max(SIZE_MULTIPLE, width // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    new_height = (
        height if pads.top + pads.bottom else max(SIZE_MULTIPLE, height // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    return fit_frames(clip, new_width, new_height, "video")


def _grow_pads(width: int, height: int, pads: Pads) -> tuple[Pads, list[str]]:
    """Make the canvas a multiple of 16; the margins share the extra pixels in proportion (VACE's rule)."""
    left, right = _grow_pair(width, pads.left, pads.right)
    top, bottom = _grow_pair(height, pads.top, pads.bottom)
    grown = Pads(left, right, top, bottom)
    if grown == pads:
        return pads, []
    return grown, [
        f"margins left {pads.left}, right {pads.right}, top {pads.top}, bottom {pads.bottom} -> "
        f"{left}, {right}, {top}, {bottom} "
        f"(canvas {width + left + right}x{height + top + bottom}, multiples of {SIZE_MULTIPLE})"
    ]


def _grow_pair(side: int, before: int, after: int) -> tuple[int, int]:
    if not before + after:
        return 0, 0
    total = -(-(side + before + after) // SIZE_MULTIPLE) * SIZE_MULTIPLE - side
    new_before = before * total // (before + after)
    return new_before, total - new_before


def _pad(clip: Tensor, pads: Pads) -> tuple[Tensor, Tensor]:
    num_frames, height, width, _ = clip.shape
    shape = (num_frames, height + pads.top + pads.bottom, width + pads.left + pads.right)
    frames, mask = clip.new_full((*shape, 3), GRAY), clip.new_ones(shape)
    inside = (slice(None), slice(pads.top, pads.top + height), slice(pads.left, pads.left + width))
    frames[inside] = clip
    mask[inside] = 0.0
    return frames, mask


def _pad_and_cover(
    clip: Tensor, pads: Pads, width: int | None, height: int | None
) -> tuple[Tensor, Tensor, list[str]]:
    """Scale the clip first and pad it at its final scale, so that no gray bleeds into kept pixels."""
    old_height, old_width = clip.shape[1:3]
    padded = old_width + pads.left + pads.right, old_height + pads.top + pads.bottom
    width, height, notes = target_size(padded, width, height)
    check_volume(len(clip), width, height, 2 * (RGB + MASK))
    scale = max(width / padded[0], height / padded[1])
    x0, x1 = round(pads.left * scale), round((pads.left + old_width) * scale)
    y0, y1 = round(pads.top * scale), round((pads.top + old_height) * scale)
    full_width, full_height = cover_size(padded, width, height)
    if x0 == x1 or y0 == y1:
        raise ValueError(
            f"the video of {old_width}x{old_height} vanishes in a canvas of {width}x{height} with margins "
            f"({padded[0]}x{padded[1]} before scaling); give smaller margins or a larger width and height"
        )
    check_size(
        len(clip) * full_width * full_height * (RGB + MASK),
        f"scaling {len(clip)} frames with their margins to {full_width}x{full_height}",
        "give smaller margins, a smaller width or height, or fewer frames",
    )
    clip = resample(clip, x1 - x0, y1 - y0)
    scaled = _ScaledPads(x0, full_width - x0 - clip.shape[2], y0, full_height - y0 - clip.shape[1])
    frames, mask = _pad(clip, scaled)
    note = f"video: {padded[0]}x{padded[1]} with its margins scaled to {full_width}x{full_height}"
    if (full_width, full_height) != (width, height):
        note += f" and cropped to {width}x{height}"
    # Already at the covering size: this only crops the center.
    frames, mask = cover(frames, width, height), cover(mask[..., None], width, height)[..., 0]
    return frames, mask, notes if padded == (width, height) else [*notes, note]


@dataclass(frozen=True)
class _ScaledPads(Pads):
    """Margins after scaling, which may have vanished by rounding."""

    def __post_init__(self):
        assert min(self.left, self.right, self.top, self.bottom) >= 0
