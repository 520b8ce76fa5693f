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

    box = mask_box(mask)
    size = before + after + 1
    if size == 1 or box is None:
        return mask
    left, top, right, bottom = box
    window = slice(max(0, top - before), bottom + after), slice(left, right)
    out = np.zeros_like(mask)
    out[window] = ndimage.maximum_filter1d(
        mask[window], size, axis=0, mode="constant", origin=after - size // 2
    )
    return out


def grow_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of a masked one (Euclidean)."""
    from scipy import ndimage

    box = mask_box(mask)
    if radius <= 0 or box is None:
        return mask
    window = _around(box, radius)
    grown = np.zeros_like(mask)
    grown[window] = ndimage.distance_transform_edt(~mask[window]) <= radius
    return grown


def shrink_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every masked pixel farther than `radius` from all that are not (Euclidean)."""
    from scipy import ndimage

    box = mask_box(mask)
    if radius <= 0 or box is None:
        return mask
    window = _around(box, 1)
    if mask[window].all():
        return mask
    out = np.zeros_like(mask)
    out[window] = ndimage.distance_transform_edt(mask[window]) > radius
    return out


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask by a disc, or shrink it where `pixels` is negative."""
    return grow_disc(mask, pixels) if pixels >= 0 else shrink_disc(mask, -pixels)


def smooth(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a mask by a Gaussian and cut it at one half again: corners are rounded, specks vanish.

    Pixels beyond the frame are as those at its border. Only the mask's box is computed: outside of it less
    than half of the Gaussian is on the mask.
    """
    box = mask_box(mask)
    if sigma <= 0 or box is None:
        return mask
    left, top, right, bottom = box
    window = slice(top, bottom), slice(left, right)
    rows = _blur_matrix(bottom - top, sigma, top == 0, bottom == mask.shape[0])
    columns = _blur_matrix(right - left, sigma, left == 0, right == mask.shape[1])
    out = np.zeros_like(mask)
    out[window] = rows @ mask[window].astype(np.float32) @ columns.T > 0.5
    return out


def _blur_matrix(size: int, sigma: float, holds_first: bool, holds_last: bool) -> np.ndarray:
    """[size, size] float32: a Gaussian cut at three sigma, zero or (holds_) the same beyond the ends."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    # beyond[d]: the weight that lies at least d pixels to one side.
    beyond = np.concatenate([weights[::-1].cumsum()[::-1][radius:], np.zeros(size + 1)])
    one_sided = np.concatenate([weights[radius:], np.zeros(size)])
    places = np.arange(size)
    matrix = one_sided[abs(places[:, None] - places)]
    if holds_first:
        matrix[:, 0] += beyond[places + 1]
    if holds_last:
        matrix[:, -1] += beyond[size - places]
    return matrix.astype(np.float32)


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


def drop_specks(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """A mask without its stray pixels, and the number of parts that were dropped.

    A part (its pixels touch by a side or a corner) is one below 1/500 of the largest part, or of at most 8
    pixels and below 1/100: a mask that is all dots stays as it is.
    """
    from scipy import ndimage

    box = mask_box(mask)
    if box is None:
        return mask, 0
    left, top, right, bottom = box
    window = slice(top, bottom), slice(left, right)
    parts, count = ndimage.label(mask[window], structure=np.ones((3, 3)))
    if count == 1:
        return mask, 0
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    specks = sizes < max(sizes.max() / 500, min(9, sizes.max() / 100))
    specks[0] = False
    out = mask.copy()
    out[window] &= ~specks[parts]
    return out, int(specks.sum())


def contours(mask: np.ndarray, line_width: int) -> np.ndarray:
    """The outer contours of a mask's parts, as OpenCV draws them: not of holes, but along the frame's border.

    That is a disc on every border pixel, and a diagonal bar between two that touch by a corner, which is one
    pixel wider than the discs for most pens. OpenCV clips a bar before it rounds it: where a diagonal reaches
    the frame's border, its edge may lie one pixel farther out.
    """
    from scipy import ndimage

    box = mask_box(mask)
    if box is None:
        return np.zeros_like(mask)
    radius = pen_radius(line_width)
    # One pixel more than the pen reaches: it must be seen that what surrounds the mask hangs together.
    window = _around(box, radius + 2)
    filled = ndimage.binary_fill_holes(mask[window])
    border = filled & ~ndimage.binary_erosion(filled)
    reaches = disc_reach(radius)
    outline = np.zeros_like(filled)
    for dy, reach in enumerate(reaches[: len(filled)]):
        row = ndimage.maximum_filter1d(border, 2 * reach + 1, axis=1, mode="constant")
        outline[dy:] |= row[: len(row) - dy]
        outline[: len(row) - dy] |= row[dy:]
    tip = round(radius / math.sqrt(2))
    if reaches[tip] < tip:
        outline |= _tips(filled, tip)
    out = np.zeros_like(mask)
    out[window] = outline
    return out


def _around(box: tuple[int, int, int, int], pixels: int) -> tuple[slice, slice]:
    """Rows and columns of a box with a margin, as far as the frame goes."""
    left, top, right, bottom = box
    return slice(max(0, top - pixels), bottom + pixels), slice(max(0, left - pixels), right + pixels)


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
