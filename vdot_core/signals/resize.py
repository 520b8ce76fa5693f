"""Resizing drawings as OpenCV does: INTER_AREA where the picture shrinks, INTER_LANCZOS4 where it grows."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Taps(NamedTuple):
    """The source pixels [size, K] of each pixel of the result, and their weights."""

    pixels: np.ndarray
    weights: np.ndarray


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a drawing by area, or by Lanczos where the result has more pixels.

    Args:
        image: [H, W, C] uint8. Only the bounding box of non-black pixels costs time.
        width, height: of the result.

    Returns:
        [height, width, C] uint8, equal to `cv2.resize` but for roundings by one level.
    """
    out = np.zeros((height, width, image.shape[2]), dtype=np.uint8)
    drawn_rows = _extent(image.reshape(len(image), -1).max(1))
    drawn_columns = _extent(image.max(0).max(1))
    taps = _lanczos_taps if width * height > image.shape[0] * image.shape[1] else _area_taps
    part = image[drawn_rows, drawn_columns]
    rows, part = _resample(part, taps(image.shape[0], height), drawn_rows)
    part = np.ascontiguousarray(part.swapaxes(0, 1))
    columns, part = _resample(part, taps(image.shape[1], width), drawn_columns)
    out[rows, columns] = np.rint(part).clip(0, 255).swapaxes(0, 1)
    return out


def _extent(coverage: np.ndarray) -> slice:
    """From the first to the last that is not 0."""
    places = np.flatnonzero(coverage)
    return slice(places[0], places[-1] + 1) if places.size else slice(0, 0)


def _resample(part: np.ndarray, taps: Taps, extent: slice) -> tuple[slice, np.ndarray]:
    """Weighted sums along axis 0 of the drawn rows, and their range in the result."""
    inside = (taps.pixels >= extent.start) & (taps.pixels < extent.stop)
    rows = _extent(inside.any(1))
    weights = (taps.weights * inside)[rows, :, None, None]
    pixels = np.where(inside, taps.pixels - extent.start, 0)[rows]
    total = np.zeros((len(pixels), *part.shape[1:]), dtype=np.float32)
    for k in range(pixels.shape[1]):
        total += weights[:, k] * part[pixels[:, k]]
    return rows, total


@lru_cache(maxsize=4)
def _area_taps(count: int, size: int) -> Taps:
    """The share of each source pixel that lies in each of `size` equal parts of the axis."""
    edges = np.arange(size + 1) * (count / size)
    pixels = edges[:-1, None].astype(int) + np.arange(-(-count // size) + 1)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return Taps(np.minimum(pixels, count - 1), (covered.clip(0) * (size / count)).astype(np.float32))


@lru_cache(maxsize=4)
def _lanczos_taps(count: int, size: int) -> Taps:
    """Lanczos with four lobes; pixels outside repeat the edge."""
    position = (np.arange(size) + 0.5) * (count / size) - 0.5
    pixels = np.floor(position).astype(int)[:, None] + np.arange(-3, 5)
    distance = position[:, None] - pixels
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return Taps(pixels.clip(0, count - 1), (weights / weights.sum(1, keepdims=True)).astype(np.float32))
