"""Boxes of masks, worked out apart from the library."""

import numpy as np


def box(mask):
    """(left, top, right, bottom) of what a mask [H, W] shows."""
    rows, columns = np.nonzero(mask.numpy())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def grown_box(mask, ratio=0.3):
    """A mask's box [H, W] as bool, larger by a ratio of it, at most half way to the border, as VACE's."""
    (height, width), (left, top, right, bottom) = mask.shape, box(mask)
    x, y = ratio * (right - left), ratio * (bottom - top)
    out = np.zeros(mask.shape, dtype=bool)
    out[
        top - int(min(y, top / 2)) : bottom + int(min(y, (height - bottom) / 2)),
        left - int(min(x, left / 2)) : right + int(min(x, (width - right) / 2)),
    ] = True
    return out
