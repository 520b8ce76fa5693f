"""Annotators on drawn people, whose joints, masks and faces are known."""

import numpy as np
import pytest
import torch

from tests.support.annotators import fetched_models
from tiny.clips.mannequin import POSES, draw_person
from vdot_core.annotators import make_annotator


@pytest.fixture(scope="module")
def models():
    """Skips where the models were not fetched."""
    return fetched_models()


NEAR = {"height": 480, "width": 384, "body_px": 380, "x": 190, "y": 250}
FAR = {"height": 480, "width": 832, "body_px": 60, "x": 600, "y": 260}


@pytest.fixture(scope="module", params=[NEAR, FAR], ids=["near", "far"])
def drawn(request, models):
    """Someone in all poses, one a frame: frames [F, H, W, 3], joints [F, 18, 2], masks [F, H, W]."""
    frames, joints, masks = zip(
        *(draw_person(limbs, **request.param) for limbs in POSES.values()), strict=True
    )
    return torch.stack(frames), np.stack(joints), torch.stack(masks)


def test_joints_of_drawn_people(drawn):
    """PCK at a fifth of the torso."""
    frames, joints, _ = drawn
    keypoints = make_annotator("pose").run(frames).keypoints
    assert [len(frame["people"]) for frame in keypoints] == [1] * len(joints)
    points = [frame["people"][0]["pose_keypoints_2d"] for frame in keypoints]
    points = np.array(points).reshape(-1, 18, 3)
    torso = np.linalg.norm(joints[:, 1] - joints[:, [8, 11]].mean(1), axis=1)
    distance = np.linalg.norm(points[..., :2] - joints, axis=2) / torso[:, None]
    assert (distance < 0.2).mean() > 0.95, distance.round(2)
    assert (points[..., 2] > 0.3).mean() > 0.95


def test_masks_of_drawn_people(drawn):
    frames, _, masks = drawn
    both = (make_annotator("matte").run(frames).masks > 0.5).float()
    truth = (masks > 0.5).float()
    union = ((both + truth) > 0).float().sum((1, 2))
    assert float(((both * truth).sum((1, 2)) / union).mean()) > 0.75


@pytest.mark.parametrize("size", [NEAR, FAR | {"body_px": 120}], ids=["near", "far"])
def test_faces_of_drawn_people(models, size):
    """The surest box is around the nose, and as large as a head."""
    frame, points, _ = draw_person(POSES["waving"], **size)
    result = make_annotator("face").run(frame[None])
    box, (x, y) = result.boxes[0][0], points[0]
    assert box.left < x < box.right and box.top < y < box.bottom
    assert 0.7 < (box.right - box.left) / np.linalg.norm(points[16] - points[17]) < 1.8
    assert result.masks[0, int(y), int(x)] == 1
