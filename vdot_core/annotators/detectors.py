"""MediaPipe's detectors of people and faces: anchors, decoding, and what is kept of overlapping answers.

Constants are those of the graphs in the wheel (mediapipe/modules/pose_detection, face_detection). Letters:
A anchors, K key points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .models import load_model
from .regions import Region, tiles

PERSON, FACE = "pose_detection.tflite", "face_detection_full_range_sparse.tflite"
# Of each layer its stride in pixels and the anchors of a cell; all anchors are as large as the picture.
LAYERS = {PERSON: ((8, 2), (16, 2), (32, 6)), FACE: ((4, 1),)}
MIN_SCORE = {PERSON: 0.5, FACE: 0.6}
MIN_RADIUS_PX = 4.0
MAX_LOGIT = 60.0


@dataclass(frozen=True, eq=False)
class Detection:
    """One answer of a detector, in pixels of the frame.

    Attributes:
        score: In [0, 1].
        box: [4] left, top, right, bottom.
        points: [K, 2] x, y. Of a person: the middle of the hips, a point on the circle around the body, the
            middle of the shoulders, a point on the circle around the upper body; of a face: right eye, left
            eye, nose, mouth, right ear, left ear.
    """

    score: float
    box: np.ndarray
    points: np.ndarray

    @property
    def center(self) -> np.ndarray:
        """[2]: of a person the middle of the hips."""
        return self.points[0]

    @property
    def radius(self) -> float:
        """Of the circle around a person's body."""
        return float(np.linalg.norm(self.points[1] - self.points[0]))


def anchors(side: int, layers: Sequence[tuple[int, int]]) -> np.ndarray:
    """[A, 2] centers as fractions of the picture, layer by layer and row by row."""
    parts = []
    for stride, count in layers:
        line = (np.arange(side // stride) + 0.5) * stride / side
        columns, rows = np.meshgrid(line, line)
        parts.append(np.stack([columns.ravel(), rows.ravel()], axis=1).repeat(count, axis=0))
    return np.concatenate(parts)


def far_places(file: str, frame: Tensor, parts: Sequence[float]) -> list[Region]:
    """Tiles of a frame [H, W, 3] for what is small in it; none where the detector sees every pixel anyway.

    Args:
        file: `PERSON` or `FACE`.
        frame: [H, W, 3].
        parts: Widths of tiles, as parts of the frame's shorter side.
    """
    height, width = frame.shape[:2]
    if max(height, width) <= load_model(file).width:
        return []
    return [tile for part in parts for tile in tiles(width, height, part)]


def detect(file: str, frame: Tensor, regions: Sequence[Region]) -> list[Detection]:
    """Run a detector on regions of a frame.

    Args:
        file: `PERSON` or `FACE`.
        frame: [H, W, 3] float in [0, 1].
        regions: Upright squares.

    Returns:
        All answers above the detector's threshold, the best first; a thing may be among them several times.
    """
    model = load_model(file)
    centers = anchors(model.width, LAYERS[file])
    detections = []
    for region in regions:
        raw, logits = model(2 * region.cut(frame, model.width, model.height) - 1)
        scores = sigmoid(logits[:, 0])
        for index in np.flatnonzero(scores > MIN_SCORE[file]):
            values = raw[index].reshape(-1, 2) / model.width
            middle, size = values[0] + centers[index], values[1]
            corners = region.to_frame(np.stack([middle - size / 2, middle + size / 2]))
            points = region.to_frame(values[2:] + centers[index])
            detections.append(Detection(float(scores[index]), corners.ravel(), points))
    return sorted(detections, key=lambda detection: -detection.score)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), in double precision."""
    return 1 / (1 + np.exp(-np.clip(values.astype(np.float64), -MAX_LOGIT, MAX_LOGIT)))


def distinct_people(detections: Sequence[Detection], limit: int) -> list[Detection]:
    """The first one of answers that are of one person.

    Args:
        detections: Those of a whole frame before those of its tiles, where a part of someone large may look
            like someone small.
        limit: Most people.
    """
    people: list[Detection] = []
    for detection in detections:
        if detection.radius > MIN_RADIUS_PX and not any(_same_person(detection, other) for other in people):
            people.append(detection)
    return people[:limit]


def _same_person(detection: Detection, other: Detection) -> bool:
    """True if hips are near, heads overlap, or one is a part of the other."""
    distance = np.linalg.norm(detection.center - other.center)
    if distance < 0.5 * max(detection.radius, other.radius) or overlap(detection.box, other.box) > 0.2:
        return True
    return detection.radius < 0.6 * other.radius and distance < 1.2 * other.radius


def distinct_faces(detections: Sequence[Detection], limit: int) -> list[Detection]:
    """Of answers that overlap by more than 0.3 of their union, the best one."""
    faces: list[Detection] = []
    for detection in detections:
        if all(overlap(detection.box, other.box) < 0.3 for other in faces):
            faces.append(detection)
    return faces[:limit]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / max(areas - shared, 1e-9)
