"""The margins of an outpainted clip, from sides, an aspect or a canvas.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from torch import Tensor

from ..text import typed
from .canvas import target_size
from .checks import MAX_SIDE, as_list, described, real, whole
from .unit import SIZE_MULTIPLE

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


def clip_pads(
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


def margin_px(name: str, value: int | float, length: int) -> int:
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
            parts = [float(part) for part in re.split("[:/x\u00d7]", typed(value).lower().replace(",", "."))]
            across, down = [*parts, 1.0] if len(parts) == 1 else parts
            value = across / down
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(
                f"aspect is {described(value)}, expected two numbers or their ratio; "
                "give one like 16:9 or 2.39"
            ) from error
    return real("aspect", value, 1 / 64, 64.0)


def grow_pads(width: int, height: int, pads: Pads) -> tuple[Pads, list[str]]:
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
