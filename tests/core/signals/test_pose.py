"""Skeletons against the requested geometry."""

import json
import math

import numpy as np
import pytest
import torch

from vdot_core.signals import draw_pose, parse_keypoints

SIZE = 512  # a square canvas at half the annotator's: one pen pixel is half a pixel
LIMB_HALF_WIDTH = 4 * SIZE / 1024


def body(**points) -> list[float]:
    """18 points of score 0, but for e.g. neck=(x, y) or neck=(x, y, score)."""
    names = (
        "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist "
        "r_hip r_knee r_ankle l_hip l_knee l_ankle r_eye l_eye r_ear l_ear"
    ).split()
    assert set(points) <= set(names)
    rows = [(*points[name], 1.0)[:3] if name in points else (0.0, 0.0, 0.0) for name in names]
    return [float(number) for row in rows for number in row]


def frame(*people, width=SIZE, height=SIZE) -> dict:
    return {"canvas_width": width, "canvas_height": height, "people": list(people)}


def person(*, face=None, right=None, left=None, **points) -> dict:
    return {
        "pose_keypoints_2d": body(**points),
        "face_keypoints_2d": face,
        "hand_right_keypoints_2d": right,
        "hand_left_keypoints_2d": left,
    }


def color(video, x, y) -> list[int]:
    return [round(float(level) * 255) for level in video[0, y, x]]


# Every limb of OpenPose's convention by the names of its ends, and its color there.
LIMB_COLORS = {
    ("neck", "r_shoulder"): (255, 0, 0),
    ("neck", "l_shoulder"): (255, 85, 0),
    ("r_shoulder", "r_elbow"): (255, 170, 0),
    ("r_elbow", "r_wrist"): (255, 255, 0),
    ("l_shoulder", "l_elbow"): (170, 255, 0),
    ("l_elbow", "l_wrist"): (85, 255, 0),
    ("neck", "r_hip"): (0, 255, 0),
    ("r_hip", "r_knee"): (0, 255, 85),
    ("r_knee", "r_ankle"): (0, 255, 170),
    ("neck", "l_hip"): (0, 255, 255),
    ("l_hip", "l_knee"): (0, 170, 255),
    ("l_knee", "l_ankle"): (0, 85, 255),
    ("neck", "nose"): (0, 0, 255),
    ("nose", "r_eye"): (85, 0, 255),
    ("r_eye", "r_ear"): (170, 0, 255),
    ("nose", "l_eye"): (255, 0, 255),
    ("l_eye", "l_ear"): (255, 0, 170),
}


@pytest.mark.parametrize("ends", LIMB_COLORS)
def test_limb_colors(ends):
    """Dimmed to 0.6 along the limb; as VACE has them, with red and blue exchanged."""
    keypoints = [frame(person(**{ends[0]: (100, 250), ends[1]: (400, 250)}))]
    expected = [int(0.6 * level) for level in LIMB_COLORS[ends]]
    assert color(draw_pose(keypoints, colors="openpose"), 250, 250) == expected
    assert color(draw_pose(keypoints), 250, 250) == expected[::-1]


def test_joint_colors_and_radius():
    video = draw_pose([frame(person(l_ear=(200, 300)))], colors="openpose", pen=4.0)
    assert color(video, 200, 300) == [255, 0, 85]
    area = float(video.sum(-1).div(float(video.sum(-1).max())).sum())
    assert area == pytest.approx(math.pi * (4 * 4 * SIZE / 1024) ** 2, rel=0.05)


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 133, 270])
def test_limb_is_an_ellipse_from_joint_to_joint(angle):
    """Area, centroid and second moments of the drawing against the ellipse's."""
    center, half = np.array([256.0, 250.0]), 150.0
    along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    a, b = center - half * along, center + half * along
    pen = 3.0
    video = draw_pose([frame(person(r_knee=tuple(a), r_ankle=tuple(b)))], colors="openpose", pen=pen)
    ink = (video[0, ..., 1] / 0.6).clamp(0, 1).double()  # both joints and the limb have full green
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    near_joint = torch.zeros_like(ink, dtype=torch.bool)
    for joint in (a, b):
        near_joint |= (x - joint[0]) ** 2 + (y - joint[1]) ** 2 < (4 * pen * SIZE / 1024 + 2) ** 2
    ink[near_joint] = 0
    width = LIMB_HALF_WIDTH * pen
    u = ((x - center[0]) * along[0] + (y - center[1]) * along[1]) / half
    v = (-(x - center[0]) * along[1] + (y - center[1]) * along[0]) / width
    expected = (u**2 + v**2 <= 1) & ~near_joint
    assert float(ink.sum()) == pytest.approx(float(expected.sum()), rel=0.05)
    overlap = (
        torch.minimum(ink, expected.double()).sum() / torch.maximum(ink, expected.double()).sum()
    ).item()
    assert overlap > 0.85


def test_score_threshold():
    low = [frame(person(neck=(100, 250), nose=(400, 250, 0.3)))]
    high = [frame(person(neck=(100, 250), nose=(400, 250, 0.31)))]
    assert color(draw_pose(low), 250, 250) == [0, 0, 0]
    assert color(draw_pose(low), 400, 250) == [0, 0, 0]
    assert color(draw_pose(low), 100, 250) != [0, 0, 0]
    assert color(draw_pose(high), 250, 250) != [0, 0, 0]


def test_face_is_white_dots_on_top():
    dots = [number for i in range(68) for number in (100 + 4 * i, 200, 0.9)] + [50, 50, 0.9, 60, 50, 0.9]
    keypoints = [frame(person(neck=(100, 200), nose=(300, 200), face=dots))]
    video = draw_pose(keypoints)
    assert color(video, 200, 200) == [255, 255, 255]
    assert color(video, 50, 50) == [0, 0, 0]  # points 68 and 69 are pupils: the body's eyes
    assert color(draw_pose(keypoints, face=False), 200, 200) == [153, 0, 0]


def test_hands_only_when_asked():
    hand = [number for i in range(21) for number in (250 + 10 * i, 400, 1.0)]
    keypoints = [frame(person(right=hand))]
    assert float(draw_pose(keypoints).max()) == 0
    video = draw_pose(keypoints, hands=True, colors="openpose")
    assert color(video, 250, 400) == [0, 0, 255]
    assert float(video[0, 400, 250:450].sum(-1).gt(0).float().mean()) > 0.95


def test_pixels_fractions_and_the_videos_size_agree():
    pixels = frame(person(neck=(100, 150), nose=(300, 250)), width=400, height=300)
    fractions = {"people": [person(neck=(0.25, 0.5), nose=(0.75, 250 / 300))]}
    picture = draw_pose([pixels], width=640, height=480)
    assert picture.shape == (1, 480, 640, 3)
    torch.testing.assert_close(picture, draw_pose([fractions], width=640, height=480))
    torch.testing.assert_close(
        draw_pose([fractions | {"canvas_width": 640, "canvas_height": 480}], coordinates="fractions"), picture
    )


def test_each_frame_has_its_own_canvas():
    small = frame(person(neck=(50, 75)), width=200, height=150)
    large = frame(person(neck=(100, 150)), width=400, height=300)
    video = draw_pose([small, large], width=320, height=240)
    torch.testing.assert_close(video[0], video[1])


def test_pen_scales_with_the_video():
    keypoints = [frame(person(neck=(0.2, 0.5), nose=(0.8, 0.5)))]
    small = draw_pose(keypoints, width=256, height=256, coordinates="fractions")
    large = draw_pose(keypoints, width=1024, height=1024, coordinates="fractions")
    assert float(large.mean()) == pytest.approx(float(small.mean()), rel=0.06)


def test_body_25_is_understood():
    """OpenPose's BODY_25 has the mid hip at 8 and the head after the ankles."""
    points = np.zeros((25, 3))
    points[1], points[9], points[15] = (
        (100, 100, 1),
        (100, 400, 1),
        (300, 50, 1),
    )  # neck, right hip, right eye
    keypoints = {
        "people": [{"pose_keypoints_2d": points.ravel().tolist()}],
        "canvas_width": SIZE,
        "canvas_height": SIZE,
    }
    expected = frame(person(neck=(100, 100), r_hip=(100, 400), r_eye=(300, 50)))
    torch.testing.assert_close(draw_pose([keypoints]), draw_pose([expected]))


def test_survives_json_and_empty_frames():
    keypoints = [frame(), frame(person(neck=(100, 100))), frame({"pose_keypoints_2d": None})]
    video = draw_pose(json.loads(json.dumps(keypoints)))
    assert video.shape == (3, SIZE, SIZE, 3)
    assert float(video[0].max()) == 0 and float(video[1].max()) > 0 and float(video[2].max()) == 0


def test_points_outside_are_cut_not_wrapped():
    video = draw_pose([frame(person(neck=(-100, 250), nose=(100, 250)))])
    assert color(video, 20, 250) != [0, 0, 0]
    assert float(video[0, :, 200:].max()) == 0


def test_draws_where_comfyuis_own_drawer_draws(comfy):
    """ComfyUI's SDPose node as the reference: the same joints and limbs, thinner and antialiased here."""
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints

    spots = {
        name: (80 + 20 * i, 100 + 37 * (i * 5 % 9)) for i, name in enumerate(["nose", "neck", "r_shoulder"])
    }
    spots |= {"l_shoulder": (300, 200), "r_hip": (150, 400), "l_hip": (350, 420), "l_knee": (400, 480)}
    empty = [0.0] * 63
    someone = person(face=[0.0] * 210, right=empty, left=empty, **spots)
    theirs = SDPoseDrawKeypoints.execute([frame(someone)], True, False, False, False, 4, 3, 0.3, True).result[
        0
    ]
    ours = draw_pose([frame(someone)], colors="openpose", pen=2.0)
    mask, other = ours[0].sum(-1) > 0.3, theirs[0].float().sum(-1) > 0.3
    assert (mask & other).sum() / (mask | other).sum() > 0.8
    hue, other_hue = ours[0][mask & other], theirs[0].float()[mask & other]
    cosine = torch.nn.functional.cosine_similarity(hue, other_hue, dim=-1)
    assert float((cosine > 0.99).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([], "an empty list"),
        ("[]", "keypoints is str, expected a list"),
        (None, "keypoints is missing, expected a list.*connect"),
        ({"animals": []}, "a table with animals, expected a list"),
        ([[1, 2]], "frame 0 are list, expected a table"),
        ([None], "frame 0 are missing, expected a table.*connect"),
        ([{}], "frame 0 are an empty table, expected"),
        ([{"persons": []}], "a table with persons, expected"),
        ([frame(), {"people": [3]}], "frame 1 is int"),
        ([frame({"pose_keypoints_2d": [0.0] * 51})], "17 points"),
        ([frame({"pose_keypoints_2d": [0.0] * 10})], "10 numbers"),
        ([frame({"pose_keypoints_2d": ["a", "b", "c"]})], "not a list of numbers; give x, y, score"),
        ([frame(person(neck=(float("nan"), 3)))], "NaN"),
        ([frame(person(right=[0.0] * 60))], "20 points"),
        ([{"people": [person(neck=(100, 100))]}], "canvas_width missing"),
    ],
)
def test_bad_keypoints_are_refused(keypoints, message):
    with pytest.raises(ValueError, match=message):
        parse_keypoints(keypoints)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"width": 10000}, "10000x"),
        ({"colors": "bgr"}, "'vace' or 'openpose'"),
        ({"pen": 0}, "pen is 0"),
        ({"coordinates": "percent"}, "'pixels' or 'fractions'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_pose([frame(person(neck=(100, 100)))], **options)


def test_size_must_be_known():
    with pytest.raises(ValueError, match="canvas_width missing and canvas_height missing"):
        draw_pose([{"people": []}])


FAR = [[0.5, 0.5, 1.0]] * 17 + [[1e9, 0.5, 1.0]]
ABSURD_KEYPOINTS = {
    "far away": {"people": [{"pose_keypoints_2d": FAR}]},
    "a huge canvas": {"people": [{"pose_keypoints_2d": [9.0, 9, 1] * 18}], "canvas_width": 10**400},
    "an endless canvas": {"people": [{"pose_keypoints_2d": [9.0, 9, 1] * 18}], "canvas_width": float("inf")},
    "400 digits": {"people": [{"pose_keypoints_2d": [10**400, 9, 1] * 18}]},
    "words": {"people": [{"pose_keypoints_2d": ["x" * 10**6] * 54}]},
    "other keys": {"x" * 10**6: 1, 5: 2},
    "infinite": {"people": [{"pose_keypoints_2d": [float("inf"), 9, 1] * 18}]},
}


@pytest.mark.parametrize("name", ABSURD_KEYPOINTS)
def test_absurd_keypoints_are_refused_shortly(name):
    with pytest.raises(ValueError, match=r"give|look at") as error:
        draw_pose([{"canvas_height": 64, **ABSURD_KEYPOINTS[name]}], width=64, height=64)
    assert len(str(error.value)) <= 400


def test_points_beyond_the_canvas_that_are_not_drawn_do_not_matter():
    points = [[0.5, 0.5, 1.0]] * 17 + [[1e9, 0.5, 0.1]]
    people = [{"pose_keypoints_2d": points}]
    video = draw_pose([{"people": people}], width=64, height=64, coordinates="fractions")
    assert video.shape == (1, 64, 64, 3) and float(video.max()) > 0


@pytest.mark.parametrize("score", [0.05, 1.0])
def test_a_single_wrong_point_does_not_decide_the_unit(score):
    points = [[0.4 + 0.01 * index, 0.2 + 0.04 * index, 1.0] for index in range(17)]
    outlier = [{"people": [{"pose_keypoints_2d": [*points, [7.0, 7.0, score]]}]}]
    size = {"width": 64, "height": 64}
    assert torch.equal(draw_pose(outlier, **size), draw_pose(outlier, **size, coordinates="fractions"))


def test_absurd_structures_of_keypoints_are_refused_shortly():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    crowd = [person(neck=(9, 9))] * 100_000
    for people in (deep, [{"pose_keypoints_2d": deep}], [{"face_keypoints_2d": {"a": deep}}], crowd):
        with pytest.raises(ValueError, match="frame 0") as error:
            parse_keypoints([{"people": people, "canvas_width": 64, "canvas_height": 64}])
        assert len(str(error.value)) <= 400
