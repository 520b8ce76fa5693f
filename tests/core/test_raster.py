"""Discs, lines, polygons and ellipses have OpenCV's pixels."""

import numpy as np
import pytest

from vdot_core.raster import disc, ellipse, line, paint, pen_radius, polygon

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH = 120, 160


def canvas() -> np.ndarray:
    return np.zeros((HEIGHT, WIDTH), dtype=np.uint8)


def point(rng: np.random.Generator, margin: int = 0) -> tuple[int, int]:
    return int(rng.integers(margin, WIDTH - margin)), int(rng.integers(margin, HEIGHT - margin))


def test_discs_within_and_across_the_border():
    rng = np.random.default_rng(0)
    for radius in range(64):
        center = point(rng, -20)
        ours, theirs = canvas(), canvas()
        paint(ours, disc(center, radius), 1)
        cv2.circle(theirs, center, radius, 1, -1)
        assert np.array_equal(ours, theirs), (center, radius)


@pytest.mark.parametrize("line_width", [1, 2, 3, 4, 7, 16, 31])
def test_lines(line_width):
    rng, margin = np.random.default_rng(line_width), line_width // 2 + 2
    for number in range(100):
        start, end = point(rng, margin), point(rng, margin)
        if number % 5 == 0:
            end = start[0] + 5 * (number % 2), start[1]
        ours, theirs = canvas(), canvas()
        for spans in line(start, end, line_width):
            paint(ours, spans, 1)
        cv2.line(theirs, start, end, 1, line_width)
        assert np.array_equal(ours, theirs), (start, end)


def test_ellipses_and_their_filling():
    rng = np.random.default_rng(0)
    for _ in range(500):
        axes = int(rng.integers(0, 50)), int(rng.integers(0, 12))
        center, degrees = point(rng, 54), int(rng.integers(-180, 181))
        ours, theirs = canvas(), canvas()
        points = ellipse(center, axes, degrees)
        expected = cv2.ellipse2Poly(center, axes, degrees, 0, 360, 1)
        # OpenCV drops repeated points.
        assert {tuple(point) for point in points.tolist()} == {tuple(point) for point in expected.tolist()}
        paint(ours, polygon(points), 1)
        cv2.fillConvexPoly(theirs, expected, 1)
        assert np.array_equal(ours, theirs), (center, axes, degrees)


def test_shapes_outside_paint_nothing():
    ours = canvas()
    for center in ((-9, 5), (WIDTH + 9, 5), (5, -9), (5, HEIGHT + 9), (10**6, -(10**6))):
        paint(ours, disc(center, 8), 1)
    assert not ours.any()


def test_a_pen_reaches_as_far_as_opencvs():
    for line_width in range(1, 65):
        theirs = canvas()
        cv2.line(theirs, (40, 60), (120, 60), 1, line_width)
        assert int(theirs[:, 80].sum()) == 2 * pen_radius(line_width) + 1
