"""Discs, thick lines and filled polygons with the pixels that OpenCV gives them, in numpy alone.

VACE's annotators draw with OpenCV. Its pens are wider than their number (2 paints 3 pixels, 3 paints 5), and
the network was trained on exactly these pixels. The integer arithmetic is that of OpenCV's
modules/imgproc/src/drawing.cpp (Circle, LineIterator, Line2, FillConvexPoly, ThickLine, ellipse2Poly). Edges
that leave the canvas may differ by a pixel: OpenCV clips them before it rounds.

Shape letters: H W pixels, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHIFT = 16  # fractional bits of OpenCV's fixed-point coordinates
ONE, HALF = 1 << SHIFT, 1 << (SHIFT - 1)

Point = tuple[int, int]


class Spans(NamedTuple):
    """A convex shape: the first and the last pixel, inclusive, of each row from `top` downwards."""

    top: int
    first: np.ndarray
    last: np.ndarray


def paint(canvas: np.ndarray, spans: Spans, color: float | Sequence[float]) -> None:
    """Paint a shape into [H, W] or [H, W, C] in place, clipped at the border."""
    height, width = canvas.shape[:2]
    rows = slice(max(0, -spans.top), max(0, height - spans.top))
    first, last = spans.first[rows], spans.last[rows]
    if not len(first):
        return
    top = max(0, spans.top)
    # Row by row: a mask of the shape's box takes several times as long.
    ends = zip(first.clip(0, width).tolist(), (last + 1).clip(0, width).tolist(), strict=True)
    # A painted row to copy from is faster than a color spread over each, where both lie alike in memory.
    source = np.full(canvas.shape[1:], color, canvas.dtype)
    if canvas.strides[-1] < 0:
        source = source[..., ::-1].copy()[..., ::-1]
    for row, (start, stop) in zip(canvas[top : top + len(first)], ends, strict=True):
        row[start:stop] = source[start:stop]


def pen_radius(line_width: int) -> int:
    """Pixels that a pen of OpenCV's `thickness` reaches to each side of its line."""
    return (line_width + 1) // 2 if line_width > 1 else 0


@lru_cache
def disc_reach(radius: int) -> tuple[int, ...]:
    """Half widths of a disc's rows at the distances 0 .. radius from its center (midpoint circle)."""
    reach = [0] * (radius + 1)
    dx, dy, error = radius, 0, 0
    while dx >= dy:
        reach[dy], reach[dx] = max(reach[dy], dx), max(reach[dx], dy)
        error += 2 * dy + 1
        dy += 1
        if error > 0:
            error -= 2 * dx - 1
            dx -= 1
    return tuple(reach)


def disc(center: Point, radius: int) -> Spans:
    """A filled `cv2.circle`."""
    reach = np.array(disc_reach(radius))[np.abs(np.arange(-radius, radius + 1))]
    return Spans(center[1] - radius, center[0] - reach, center[0] + reach)


def polygon(points: np.ndarray) -> Spans:
    """`cv2.fillConvexPoly` of integer points [N, 2] (x, y)."""
    return _spans(_pixel_outline(points), _scanlines(points << SHIFT))


def line(start: Point, end: Point, line_width: int) -> list[Spans]:
    """`cv2.line`: a quadrilateral, and a disc at each end; one shape for a width of 1."""
    ends = np.array([start, end], dtype=np.int64)
    if line_width <= 1:
        return [_spans(_pixel_outline(ends))]
    radius = pen_radius(line_width)
    caps = [disc(start, radius), disc(end, radius)]
    dx, dy = (ends[1] - ends[0]).tolist()
    if dx == dy == 0:
        return caps
    across = np.rint(np.array([-dy, dx]) * (radius * ONE / math.hypot(dx, dy))).astype(np.int64)
    a, b = ends << SHIFT
    corners = np.stack([a - across, a + across, b + across, b - across])
    return [_spans(_subpixel_outline(corners), _scanlines(corners)), *caps]


def ellipse(center: Point, axes: Point, degrees: int) -> np.ndarray:
    """The points [361, 2] of `cv2.ellipse2Poly` with steps of one degree; `axes` are half lengths."""
    cos, sin = _circle()
    x, y = axes[0] * cos, axes[1] * sin
    turn = degrees % 360
    points = np.stack([x * cos[turn] - y * sin[turn], x * sin[turn] + y * cos[turn]], axis=1)
    return np.rint(points + center).astype(np.int64)


@lru_cache(maxsize=1)
def _circle() -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of 0 .. 360 degrees, with OpenCV's seven decimals, which round points such as 2.5."""
    angles = np.radians(np.arange(361))
    cos, sin = (np.round(table(angles), 7).astype(np.float32) for table in (np.cos, np.sin))
    return cos.astype(np.float64), sin.astype(np.float64)


def _spans(*pixels: tuple[np.ndarray, np.ndarray]) -> Spans:
    """The row-wise hull of pixels (x, y)."""
    x, y = (np.concatenate(part) for part in zip(*pixels, strict=True))
    top = int(y.min())
    first = np.full(int(y.max()) - top + 1, np.iinfo(np.int64).max)
    last = np.full(len(first), np.iinfo(np.int64).min)
    np.minimum.at(first, y - top, x)
    np.maximum.at(last, y - top, x)
    return Spans(top, first, last)


def _edges(points: np.ndarray, axis: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every edge of a closed polygon, ascending along `axis` (one, or one for each edge)."""
    end = np.roll(points, -1, axis=0)
    number = np.arange(len(points))
    swap = (end[number, axis] < points[number, axis])[:, None]
    return np.where(swap, end, points), np.where(swap, points, end)


def _count_up(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge numbers and steps 0 .. count - 1 along each edge, all edges in one row."""
    edge = np.repeat(np.arange(len(counts)), counts)
    return edge, np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts)


def _pixel_outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a polygon of integer points: Bresenham from left to right, halves to where it began."""
    start, end = _edges(points, 0)
    dx, dy = (end - start).T
    length, minor = np.maximum(dx, abs(dy)), np.minimum(dx, abs(dy))
    edge, step = _count_up(length + 1)
    divisor = 2 * np.maximum(length, 1)[edge]
    aside = -((divisor // 2 - 2 * step * minor[edge]) // divisor)
    steep = (abs(dy) > dx)[edge]
    x, y = np.where(steep, aside, step), np.where(steep, step, aside) * np.sign(dy)[edge]
    return start[edge, 0] + x, start[edge, 1] + y


def _subpixel_outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a polygon of fixed-point points: integer steps along the longer axis, and each edge's end."""
    dx, dy = abs(np.roll(points, -1, axis=0) - points).T
    long = (dy >= dx).astype(np.int64)
    start, end = _edges(points, long)
    number = np.arange(len(points))
    length, minor = (end - start)[number, long], (end - start)[number, 1 - long]
    slope = _truncated(minor * ONE, length | 1)
    edge, step = _count_up((length >> SHIFT) + 1)
    start = start + HALF
    along = (start[number, long] >> SHIFT)[edge] + step
    aside = (start[number, 1 - long][edge] + slope[edge] * step) >> SHIFT
    flat = (long == 0)[edge]
    x, y = np.where(flat, along, aside), np.where(flat, aside, along)
    last = (end + HALF) >> SHIFT
    return np.append(x, last[:, 0]), np.append(y, last[:, 1])


def _scanlines(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crossings of a polygon's edges with the rows, from fixed-point points."""
    start, end = _edges(points, 1)
    row = (start[:, 1] + HALF) >> SHIFT
    count = ((end[:, 1] + HALF) >> SHIFT) - row
    start, end, row, count = (part[count > 0] for part in (start, end, row, count))
    slope = _truncated(2 * (end[:, 0] - start[:, 0]) + count, 2 * count)
    edge, step = _count_up(count)
    return (start[edge, 0] + slope[edge] * step + HALF) >> SHIFT, row[edge] + step


def _truncated(dividend: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """C's integer division, toward zero."""
    return np.sign(dividend) * (abs(dividend) // divisor)
