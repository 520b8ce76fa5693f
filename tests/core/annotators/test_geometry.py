"""Regions, anchors and the table of key points: no model is needed."""

import math

import numpy as np
import pytest
import torch

from vdot_core.annotators.annotator import Box
from vdot_core.annotators.detectors import FACE, LAYERS, PERSON, Detection, anchors, distinct_people, overlap
from vdot_core.annotators.openpose_points import BODY, as_dwpose, body_points, face_points
from vdot_core.annotators.openpose_points import FACE as FACE_TABLE
from vdot_core.annotators.regions import Region, tiles
from vdot_core.signals import draw_pose


def dot(x, y, width=64, height=48, radius=2.0):
    """[H, W, 3]: a white disc on black."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    disc = (np.hypot(columns - x, rows - y) < radius).astype(np.float32)
    return torch.from_numpy(disc)[..., None].repeat(1, 1, 3)


@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0, math.pi])
@pytest.mark.parametrize("side", [20.0, 40.0, 130.0])
def test_a_point_of_a_cut_out_is_where_it_is_in_the_frame(angle, side):
    x, y = 36.0, 21.0
    region = Region(32, 24, side, side, angle)
    cut = region.cut(dot(x, y, radius=2.5), 96, 96)[..., 0]
    assert cut.max() > 0.3
    rows, columns = np.mgrid[:96, :96] + 0.5
    center = np.array([[(cut * columns).sum(), (cut * rows).sum()]]) / cut.sum() / 96
    assert np.abs(region.to_frame(center) - (x, y)).max() < 0.6


def test_a_turned_region_shows_a_lying_person_upright():
    # Hips in the middle, head to the right of them: MediaPipe's angle is a quarter turn.
    frame = dot(50, 24, radius=3)
    cut = Region(32, 24, 48, 48, math.pi / 2).cut(frame, 48, 48)[..., 0]
    row, column = np.unravel_index(cut.argmax(), cut.shape)
    assert row < 12 and 20 < column < 28


def test_pasting_undoes_cutting():
    values = torch.zeros(16, 16)
    values[4:12, 4:12] = 1
    placed = Region(20, 30, 16, 16).paste(values, 48, 64)
    assert placed[26:34, 16:24].min() > 0.99 and float(placed.sum()) == pytest.approx(64, abs=2)
    assert float(Region(-40, 0, 16, 16).paste(values, 48, 64).sum()) == 0


@pytest.mark.parametrize(("width", "height"), [(768, 576), (480, 832), (64, 64), (400, 30)])
def test_tiles_cover_a_frame(width, height):
    covered = np.zeros((height, width), bool)
    for tile in tiles(width, height, 0.5):
        left, top = round(tile.x - tile.width / 2), round(tile.y - tile.height / 2)
        assert left >= 0 and left + tile.width <= width + 1
        covered[max(0, top) : top + math.ceil(tile.height), left : left + math.ceil(tile.width)] = True
    assert covered.all()


def test_a_very_long_frame_has_few_tiles():
    assert len(tiles(8192, 1, 0.5)) < 20


def test_boxes_are_given_inside_the_frame():
    box = Box(-4, 10.4, 12, 20)
    assert box.within(64, 48) == {"x": 0, "y": 10, "width": 12, "height": 10}
    assert box.within(64, 48, expand=0.5) == {"x": 0, "y": 5, "width": 20, "height": 20}
    assert Box(70, 0, 80, 9).within(64, 48) is None


def test_key_points_in_the_form_of_dwpose():
    landmarks = np.random.default_rng(3).random((33, 3)) * (90, 60, 0) + (3, 3, 0.9)
    landmarks[15, 2] = 0.1
    body = body_points(landmarks)
    person = {"pose_keypoints_2d": body.ravel().tolist()}
    (frame,) = as_dwpose([{"people": [person], "canvas_width": 96, "canvas_height": 64}], 0.3)
    (theirs,) = frame["people"]
    points = np.array(theirs["pose_keypoints_2d"]).reshape(18, 3)
    assert points[7].tolist() == [0, 0, 0] and (points[[*range(7), *range(8, 18)], 2] == 1).all()
    assert points[0, :2] == pytest.approx(body[0, :2])
    counts = {name: len(values) // 3 for name, values in theirs.items()}
    assert counts == {
        "pose_keypoints_2d": 18,
        "face_keypoints_2d": 70,
        "hand_left_keypoints_2d": 21,
        "hand_right_keypoints_2d": 21,
    }
    assert not any(theirs["face_keypoints_2d"]), "a face that was not seen has no eyes either"


def test_anchors_are_as_many_as_the_networks_answers():
    assert anchors(224, LAYERS[PERSON]).shape == (2254, 2) and anchors(192, LAYERS[FACE]).shape == (2304, 2)


def person(x, y, radius, score, head=None):
    points = np.array([[x, y], [x, y - radius], [x, y], [x, y]], float)
    left, top = head or (x - 5, y - radius)
    return Detection(score, np.array([left, top, left + 10, top + 10], float), points)


def test_one_person_is_one_answer():
    first, same, other = person(50, 50, 30, 0.9), person(55, 52, 28, 0.8), person(90, 50, 30, 0.7)
    torso = person(50, 90, 20, 0.6, head=(46, 21))
    assert distinct_people([first, same, other, torso], 8) == [first, other]
    assert distinct_people([first, other], 1) == [first]
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)


def test_the_neck_is_the_middle_of_the_shoulders():
    landmarks = np.random.default_rng(0).random((33, 3))
    points = body_points(landmarks)
    assert points[1, :2] == pytest.approx((landmarks[11, :2] + landmarks[12, :2]) / 2)
    assert points[1, 2] == min(landmarks[11, 2], landmarks[12, 2])
    # OpenPose has the right side first, BlazePose the left one.
    for right, left in ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17)):
        low, high = sorted((BODY[right][0], BODY[left][0]))
        assert high - low in (1, 3) and len(BODY[right]) == 1 and BODY[right][0] == high
    assert len(BODY) == 18 and len(FACE_TABLE) == 68 and max(FACE_TABLE) < 468


def test_points_are_drawn_as_those_of_dwpose():
    """The same person in pixels, as annotators give it, and in fractions, as DWPose does."""
    landmarks = np.random.default_rng(1).random((33, 3)) * (96, 64, 0.5) + (0, 0, 0.5)
    mesh = np.random.default_rng(2).random((468, 2)) * (96, 64)
    body, face = body_points(landmarks), face_points(mesh, 0.9)
    size = {"canvas_width": 96, "canvas_height": 64}
    ours = {"pose_keypoints_2d": body.ravel().tolist(), "face_keypoints_2d": face.ravel().tolist()}
    scale = np.array([96, 64, 1])
    theirs = {
        "pose_keypoints_2d": (body / scale).ravel().tolist(),
        "face_keypoints_2d": (face / scale).ravel().tolist(),
    }
    first = draw_pose([{"people": [ours], **size}], width=96, height=64, coordinates="pixels")
    second = draw_pose([{"people": [theirs], **size}], width=96, height=64, coordinates="fractions")
    assert torch.equal(first, second) and first.max() > 0.5
