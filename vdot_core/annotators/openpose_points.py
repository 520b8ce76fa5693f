"""BlazePose's 33 body landmarks and the face mesh's 468 points as OpenPose's 18 and 68.

Left and right are the person's. Sources: MediaPipe's pose landmark model card and face mesh topology;
OpenPose's COCO-18 and 68-point face orders.
"""

from __future__ import annotations

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
NUM_LANDMARKS = 33


def body_points(landmarks: np.ndarray) -> np.ndarray:
    """OpenPose's joints.

    Args:
        landmarks: [33, 3] x, y and visibility in [0, 1].

    Returns:
        [18, 3] x, y, score; the score of a middle is the lower visibility.
    """
    parts = [landmarks[list(indices)] for indices in BODY]
    return np.array([[*part[:, :2].mean(0), part[:, 2].min()] for part in parts])


def face_points(mesh: np.ndarray, score: float) -> np.ndarray:
    """OpenPose's 68 points [68, 3] of a mesh [468, 2], all with the face's score."""
    return np.concatenate([mesh[list(FACE)], np.full((len(FACE), 1), score)], axis=1)
