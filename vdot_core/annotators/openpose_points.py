"""BlazePose's 33 body landmarks or COCO's 17, and the face mesh's 468 points, as OpenPose's 18 and 68.

Left and right are the person's. Sources: MediaPipe's pose landmark model card and face mesh topology;
OpenPose's COCO-18 and 68-point face orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# OpenPose's joint -> landmarks whose middle it is: the neck is the middle of the shoulders.
BODY = (
    (0,), (11, 12), (12,), (14,), (16,), (11,), (13,), (15,), (24,), (26,), (28,), (23,), (25,), (27,),
    (5,), (2,), (8,), (7,),
)  # fmt: skip
FACE = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),  # mouth
)
# The same of COCO's 17 joints.
COCO = (
    (0,), (5, 6), (6,), (8,), (10,), (5,), (7,), (9,), (12,), (14,), (16,), (11,), (13,), (15,),
    (2,), (1,), (4,), (3,),
)  # fmt: skip
NUM_LANDMARKS = 33
EYES = (14, 15)  # of the body: DWPose and ComfyUI's nodes add them to the face's 68 points
NUM_FACE, NUM_HAND = 70, 21


def body_points(landmarks: np.ndarray, table: Sequence[Sequence[int]] = BODY) -> np.ndarray:
    """OpenPose's joints.

    Args:
        landmarks: [33, 3] x, y and visibility in [0, 1]; or as many as the table names.
        table: Joint -> landmarks whose middle it is.

    Returns:
        [18, 3] x, y, score; the score of a middle is the lower visibility.
    """
    parts = [landmarks[list(indices)] for indices in table]
    return np.array([[*part[:, :2].mean(0), part[:, 2].min()] for part in parts])


def face_points(mesh: np.ndarray, score: float) -> np.ndarray:
    """OpenPose's 68 points [68, 3] of a mesh [468, 2], all with the face's score."""
    return np.concatenate([mesh[list(FACE)], np.full((len(FACE), 1), score)], axis=1)


def as_dwpose(keypoints: Sequence[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    """Key points in the form of DWPose's nodes, for nodes that read a score below 1 as a missing point.

    Args:
        keypoints: See `vdot_core.annotators.pose.estimate_poses`.
        threshold: Points with a score above this are there.

    Returns:
        One dict a frame; each person has a body of 18 points, a face of 70 and hands of 21, those that are
        there with the score 1, all others 0, 0, 0.
    """
    return [
        {**frame, "people": [_as_dwpose(person, threshold) for person in frame["people"]]}
        for frame in keypoints
    ]


def _as_dwpose(person: dict[str, Any], threshold: float) -> dict[str, list[float]]:
    body = _present(person["pose_keypoints_2d"], threshold)
    face = np.zeros((NUM_FACE, 3))
    if "face_keypoints_2d" in person:
        face = np.concatenate([_present(person["face_keypoints_2d"], threshold), body[list(EYES)]])
    hands = np.zeros((NUM_HAND, 3))
    parts = {"pose": body, "face": face, "hand_left": hands, "hand_right": hands}
    return {f"{name}_keypoints_2d": points.ravel().tolist() for name, points in parts.items()}


def _present(points: Sequence[float], threshold: float) -> np.ndarray:
    """[N, 3] of a flat list, with scores of 1 and 0."""
    rows = np.array(points).reshape(-1, 3)
    there = rows[:, 2:] > threshold
    return np.concatenate([rows[:, :2], np.ones((len(rows), 1))], axis=1) * there
