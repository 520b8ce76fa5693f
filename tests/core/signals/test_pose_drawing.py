"""Skeletons and resizing have the pixels of VACE's annotator, which draws and resizes with OpenCV."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.signals import draw_pose
from vdot_core.signals.pose import COLORS, LIMBS
from vdot_core.signals.resize import resize

cv2 = pytest.importorskip("cv2")


def annotator(people: list[dict], width: int, height: int, hands: bool) -> np.ndarray:
    """[height, width, 3] uint8 by DWPose's drawing as VACE calls it; x and y are fractions, [n, 3] each."""
    scale = 1024 / min(width, height)
    h, w = (int(np.round(side * scale / 64)) * 64 for side in (height, width))
    canvas = np.zeros((h, w, 3), dtype=np.uint8)
    for number, (a, b) in enumerate(LIMBS):
        for person in people:
            if min(person["body"][[a, b], 2]) > 0.3:
                x, y = person["body"][[a, b], 0] * w, person["body"][[a, b], 1] * h
                length = math.hypot(x[0] - x[1], y[0] - y[1])
                angle = math.degrees(math.atan2(y[0] - y[1], x[0] - x[1]))
                center, axes = (int(x.mean()), int(y.mean())), (int(length / 2), 4)
                limb = cv2.ellipse2Poly(center, axes, int(angle), 0, 360, 1)
                cv2.fillConvexPoly(canvas, limb, COLORS[number])
    canvas = (canvas * 0.6).astype(np.uint8)
    for number, color in enumerate(COLORS):
        for person in people:
            x, y, score = person["body"][number]
            if score > 0.3:
                cv2.circle(canvas, (int(x * w), int(y * h)), 4, color, -1)
    sides = [person[side] for side in ("left", "right") for person in people] if hands else []
    for hand in sides:
        places = [(int(x * w), int(y * h), score) for x, y, score in hand]
        for number in range(20):
            (x1, y1, s1), (x2, y2, s2) = places[0 if number % 4 == 0 else number], places[number + 1]
            if min(s1, s2) > 0.3 and min(x1, y1, x2, y2) > 0.01:
                color = [255 * level for level in colorsys.hsv_to_rgb(number / 20, 1, 1)]
                cv2.line(canvas, (x1, y1), (x2, y2), color, 2)
        for x, y, score in places:
            if score > 0.3 and min(x, y) > 0.01:
                cv2.circle(canvas, (x, y), 4, (0, 0, 255), -1)
    for person in people:
        for x, y, score in person["face"]:
            if score > 0.3 and min(int(x * w), int(y * h)) > 0.01:
                cv2.circle(canvas, (int(x * w), int(y * h)), 3, (255, 255, 255), -1)
    method = cv2.INTER_LANCZOS4 if width * height > w * h else cv2.INTER_AREA
    return cv2.resize(canvas[..., ::-1], (width, height), interpolation=method)


def someone(rng: np.random.Generator) -> dict:
    """Points near each other, mostly inside of the picture, some of a low score."""
    center, spread = rng.uniform(0.3, 0.7, 2), rng.uniform(0.05, 0.2)

    def points(count: int, size: float) -> np.ndarray:
        place = (center + rng.normal(0, size, (count, 2))).clip(0.001, 0.98)
        return np.concatenate([place, rng.uniform(0.1, 1, (count, 1))], axis=1)

    return {
        "body": points(18, spread),
        "face": points(68, 0.03),
        "left": points(21, 0.05),
        "right": points(21, 0.05),
    }


def keypoints(people: list[dict]) -> list[dict]:
    names = {"body": "pose", "face": "face", "left": "hand_left", "right": "hand_right"}
    fields = [
        {f"{names[key]}_keypoints_2d": part.ravel().tolist() for key, part in p.items()} for p in people
    ]
    return [{"people": fields}]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from(
        [(832, 480), (480, 832), (1280, 720), (64, 64), (400, 300), (1088, 1088), (336, 592)]
    ),
    count=st.integers(1, 3),
    hands=st.booleans(),
)
def test_skeletons_are_the_annotators(seed, size, count, hands):
    rng = np.random.default_rng(seed)
    people = [someone(rng) for _ in range(count)]
    video = draw_pose(keypoints(people), width=size[0], height=size[1], hands=hands, coordinates="fractions")
    ours = (video[0] * 255).round().numpy().astype(int)
    theirs = annotator(people, *size, hands)
    # A level of rounding where OpenCV resizes in integers.
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.02


def test_on_the_annotators_own_canvas_every_pixel_is_the_same():
    rng = np.random.default_rng(1)
    for _ in range(5):
        people = [someone(rng), someone(rng)]
        video = draw_pose(keypoints(people), width=1024, height=1024, hands=True, coordinates="fractions")
        assert np.array_equal((video[0] * 255).round().numpy(), annotator(people, 1024, 1024, True))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1024, 1792), (832, 480)), ((1024, 1024), (64, 64)), ((128, 128), (1, 1)), ((192, 128), (77, 100)),
        ((128, 128), (256, 192)), ((128, 192), (200, 129)),
    ],
)  # fmt: skip
def test_resizing_is_opencvs(shape, size):
    image = np.zeros((*shape, 3), dtype=np.uint8)
    part = image[shape[0] // 3 :, shape[1] // 4 : shape[1] - 7]
    part[:] = np.random.default_rng(0).integers(0, 256, part.shape)
    grows = size[0] * size[1] > shape[0] * shape[1]
    expected = cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA)
    ours = resize(image, *size)
    assert ours.shape == expected.shape and np.abs(ours.astype(int) - expected).max() <= 1
    assert not resize(np.zeros_like(image), *size).any()


def test_a_hand_or_face_point_in_the_first_row_or_column_is_missing():
    """The annotator marks missing ones by -1 and leaves out points outside."""
    points = np.array([[0.0, 0.5, 1.0], [0.5, 0.0, 1.0], [-0.2, 0.5, 1.0]])
    people = [{"face_keypoints_2d": points.ravel().tolist()}]
    assert not draw_pose([{"people": people}], width=64, height=64, coordinates="fractions").any()
