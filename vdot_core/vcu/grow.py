"""Growing, shrinking, smoothing and outlining masks, on the CPU.

Shape letters: H W pixels. A mask here is a bool [H, W]; pixels beyond the frame are never masked, and
never shrink a mask that touches the border.
"""

from __future__ import annotations

import math

import numpy as np

from ..raster import disc_reach, pen_radius


def spread(mask: np.ndarray, before: int, after: int) -> np.ndarray:
    """Spread a mask by `before` pixels up and `after` pixels down."""
    from scipy import ndimage

    size = before + after + 1
    return ndimage.maximum_filter1d(mask, size, axis=0, mode="constant", origin=after - size // 2)


def grow_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of a masked one (Euclidean)."""
    from scipy import ndimage

    box = mask_box(mask)
    if radius <= 0 or box is None:
        return mask
    left, top, right, bottom = box
    window = slice(max(0, top - radius), bottom + radius), slice(max(0, left - radius), right + radius)
    grown = np.zeros_like(mask)
    grown[window] = ndimage.distance_transform_edt(~mask[window]) <= radius
    return grown


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask by a disc, or shrink it where `pixels` is negative."""
    return grow_disc(mask, pixels) if pixels >= 0 else ~grow_disc(~mask, -pixels)


def smooth(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a mask by a Gaussian and cut it at one half again: corners are rounded, specks vanish."""
    from scipy import ndimage

    if sigma <= 0 or not mask.any():
        return mask
    soft = mask.astype(np.float32)
    return ndimage.gaussian_filter(soft, sigma, mode="nearest", radius=math.ceil(3 * sigma)) > 0.5


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
    from scipy import ndimage

    filled = ndimage.binary_fill_holes(mask)
    border = filled & ~ndimage.binary_erosion(filled)
    radius = pen_radius(line_width)
    reaches = disc_reach(radius)
    outline = np.zeros_like(mask)
    for dy, reach in enumerate(reaches[: len(mask)]):
        row = ndimage.maximum_filter1d(border, 2 * reach + 1, axis=1, mode="constant")
        outline[dy:] |= row[: len(row) - dy]
        outline[: len(row) - dy] |= row[dy:]
    tip = round(radius / math.sqrt(2))
    return outline | _tips(filled, tip) if reaches[tip] < tip else outline


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
