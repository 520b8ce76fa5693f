"""Growing, shrinking, smoothing and outlining masks, in numpy alone.

Shape letters: H W pixels. A mask here is a bool [H, W]; what lies beyond the frame is never masked, and never
eats into a mask that touches the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..raster import disc_reach, pen_radius


def spread(mask: np.ndarray, before: int, after: int) -> np.ndarray:
    """Spread a mask by `before` pixels up and `after` pixels down, by running sums."""
    padded = np.pad(mask, ((after + 1, before), (0, 0))).astype(np.int32).cumsum(0)
    size, window = mask.shape[0], before + after + 1
    return padded[window : window + size] > padded[:size]


def grow_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of a masked one (Euclidean)."""
    return _stamp(mask, [math.isqrt(radius * radius - dy * dy) for dy in range(radius + 1)])


def _stamp(mask: np.ndarray, reaches: Sequence[int]) -> np.ndarray:
    """Put a disc on every masked pixel, given the half widths of its rows at distance 0, 1, .. radius."""
    box, radius = mask_box(mask), len(reaches) - 1
    if radius <= 0 or box is None:
        return mask
    height, width = mask.shape
    left, top, right, bottom = box
    left, right = max(0, left - radius), min(width, right + radius)
    part = mask[top:bottom, left:right]
    out = np.zeros((part.shape[0] + 2 * radius, part.shape[1]), dtype=bool)
    sums = np.pad(part, ((0, 0), (radius + 1, radius))).astype(np.int32).cumsum(1)
    columns = part.shape[1]
    for dy, reach in enumerate(reaches):
        row = (
            sums[:, radius + reach + 1 : radius + reach + 1 + columns]
            > sums[:, radius - reach : radius - reach + columns]
        )
        for offset in {radius - dy, radius + dy}:
            out[offset : offset + part.shape[0]] |= row
    grown = np.zeros_like(mask)
    y0, y1 = max(0, top - radius), min(height, bottom + radius)
    grown[y0:y1, left:right] = out[y0 - (top - radius) : y1 - (top - radius)]
    return grown


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask by a disc, or shrink it where `pixels` is negative."""
    return grow_disc(mask, pixels) if pixels >= 0 else ~grow_disc(~mask, -pixels)


def smooth(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a mask by a Gaussian and cut it at one half again: corners are rounded, specks vanish."""
    if sigma <= 0 or not mask.any():
        return mask
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    weights /= weights.sum()
    soft = mask.astype(np.float32)
    for _ in range(2):
        padded = np.pad(soft, ((reach, reach), (0, 0)), mode="edge")
        size = soft.shape[0]
        soft = sum(weight * padded[i : i + size] for i, weight in enumerate(weights)).T
    return soft > 0.5


def fill_hull(mask: np.ndarray) -> np.ndarray:
    """Fill the convex hull: row by row between the envelopes of its left and right ends."""
    rows = np.flatnonzero(mask.any(1))
    lefts = mask[rows].argmax(1)
    rights = mask.shape[1] - 1 - mask[rows][:, ::-1].argmax(1)
    every_row = np.arange(rows[0], rows[-1] + 1)
    left = _lower_envelope(rows, lefts, every_row)
    right = -_lower_envelope(rows, -rights, every_row)
    columns = np.arange(mask.shape[1])
    filled = np.zeros_like(mask)
    # The slack keeps pixels that lie on the hull's edge inside despite rounding.
    filled[every_row] = (columns >= left[:, None] - 1e-6) & (columns <= right[:, None] + 1e-6)
    return filled


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Bounding box (left, top, right, bottom), ends exclusive; None when empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def contours(mask: np.ndarray, line_width: int) -> np.ndarray:
    """The outer contours of a mask's parts, as OpenCV draws them: not of holes, but along the frame's border.

    That is a disc on every border pixel, and a diagonal bar between two that touch by a corner, which is one
    pixel wider than the discs for most pens. OpenCV clips a bar before it rounds it: where a diagonal reaches
    the frame's border, its edge may lie one pixel farther out.
    """
    filled = fill_holes(mask)
    padded = np.pad(filled, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    radius = pen_radius(line_width)
    reaches = disc_reach(radius)
    drawn = _stamp(filled & ~inner, reaches)
    tip = round(radius / math.sqrt(2))
    return drawn | _tips(filled, tip) if reaches[tip] < tip else drawn


def _tips(filled: np.ndarray, reach: int) -> np.ndarray:
    """Corners of the squares between border pixels that touch by a corner: `reach` aside of both pixels."""
    height, width = filled.shape
    falling = filled[:-1, :-1] & filled[1:, 1:] & ~(filled[:-1, 1:] & filled[1:, :-1])
    rising = filled[:-1, 1:] & filled[1:, :-1] & ~(filled[:-1, :-1] & filled[1:, 1:])
    out = np.zeros((height + 2 * reach, width + 2 * reach), dtype=bool)
    for pairs, ends, sign in ((falling, ((0, 0), (1, 1)), -1), (rising, ((0, 1), (1, 0)), 1)):
        for y, x in ends:
            for step in (-reach, reach):
                top, left = reach + y + step, reach + x + sign * step
                out[top : top + height - 1, left : left + width - 1] |= pairs
    return out[reach : reach + height, reach : reach + width]


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Mask what the border cannot reach through unmasked pixels, by the four neighbours."""
    free = np.pad(~mask, 1, constant_values=True)
    reached = np.zeros_like(free)
    reached[0] = reached[-1] = True
    reached[:, 0] = reached[:, -1] = True
    count = -1
    while count != (count := int(reached.sum())):
        for view, blocked in ((reached, ~free), (reached.T, ~free.T)):
            _sweep(view, blocked)
            _sweep(view[::-1], blocked[::-1])
    return ~reached[1:-1, 1:-1]


def _sweep(reached: np.ndarray, blocked: np.ndarray) -> None:
    """Carry `reached` down every column until something blocks it, in place."""
    rows = np.arange(len(reached))[:, None]
    source = np.maximum.accumulate(np.where(reached, rows, -1), axis=0)
    wall = np.maximum.accumulate(np.where(blocked, rows, -1), axis=0)
    reached |= source > wall


def _lower_envelope(xs: np.ndarray, ys: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Largest convex function under the points (Andrew's monotone chain), evaluated at `at`."""
    chain: list[tuple[int, int]] = []
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            chain.pop()
        chain.append((x, y))
    corners = np.array(chain, dtype=np.float64)
    return np.interp(at, corners[:, 0], corners[:, 1])
