"""The stick figure: key points on its body, true captions, motion in the direction it faces."""

import numpy as np
import pytest
import torch

from tiny.clips import shapes
from tiny.clips.figure import ACTIONS, SHAPE
from tiny.clips.units import pose
from vdot_core import signals

SEEDS = range(30)


@pytest.fixture(scope="module")
def figures():
    return [shapes.figure_clip(seed) for seed in SEEDS]


def test_every_key_point_lies_on_the_figure(figures):
    for clip in figures:
        distance = clip.objects[0].distance(64, 64)
        assert clip.joints.shape == (17, 18, 2)
        for joints, field in zip(clip.joints, distance, strict=True):
            inside = (joints >= 0.5).all(-1) & (joints[:, 0] <= 63.5) & (joints[:, 1] <= 63.5)
            columns, rows = joints[inside].long().unbind(-1)
            assert inside.sum() >= 12, "most of it is in the picture"
            assert (field[rows, columns] < 0.75).all(), "within a pixel's half of the outline"


def test_openpose_points_are_the_joints_and_draw_inside_the_figure(figures):
    for clip in figures[:6]:
        people = signals.parse_keypoints(clip.keypoints)
        body = np.stack([crowd[0].body[:, :2] * 64 for crowd in people])
        np.testing.assert_allclose(body, clip.joints.numpy(), atol=1e-4)
        lines = pose(clip).frames.amax(-1) > 0.4
        near = clip.objects[0].distance(64, 64) < 1.5
        assert lines.sum() > 500 and (lines & near).sum() > 0.97 * lines.sum()


def test_captions_say_what_it_does(figures):
    actions = set()
    verbs = {"walk": "walking", "run": "running", "wave": "waving", "jump": "jumping"}
    for clip in figures:
        (figure,) = clip.objects
        text = clip.captions[3]
        assert (
            text.split(" on a")[0]
            in {
                f"a {figure.color} {SHAPE} {verbs[figure.path]}{rest}"
                for rest in ("", " a hand", " up and down", f" to the {figure.direction}")
            }
            or figure.color == "orange"
        )
        assert all(f"{figure.color} {SHAPE}" in words for words in clip.captions)
        assert clip.background in text and clip.caption in clip.captions
        step = figure.centers[-1] - figure.centers[0]
        if figure.path in ("walk", "run"):
            assert step[0] * (1 if figure.direction == "right" else -1) > 10
        else:
            assert not step.any()
        if figure.path == "jump":
            assert clip.joints[:, 10, 1].max() - clip.joints[:, 10, 1].min() > 3
        if figure.path == "wave":
            assert not clip.joints[:, [8, 9, 10]].std(0).any() and clip.joints[:, 7].std(0).max() > 0.8
        actions.add(figure.path)
        inner = clip.objects[0].distance(64, 64) < -1
        if inner.sum() > 20:
            assert (clip.frames[inner] - torch.tensor(figure.rgb)).abs().max() < 1e-5
    assert actions == set(ACTIONS)


def test_limbs_keep_their_length():
    clip = shapes.figure_clip(2, height=96, width=128, num_frames=25)
    for upper, lower in ((2, 3), (3, 4), (8, 9), (9, 10)):
        lengths = (clip.joints[:, upper] - clip.joints[:, lower]).norm(dim=-1)
        assert lengths.std() < 1e-3 and lengths.min() > 3


def test_shapes_have_no_key_points():
    with pytest.raises(ValueError, match="figure_clip"):
        _ = shapes.clip(0).joints
    with pytest.raises(ValueError, match="outside every split"):
        shapes.figure_clip(2**50)
