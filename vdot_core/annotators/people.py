"""The people of a clip by BlazePose: detected now and then, cut out upright, and followed in between.

Letters: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .detectors import PERSON, detect, distinct_people, far_places, sigmoid
from .models import load_model
from .openpose_points import NUM_LANDMARKS
from .regions import Region

LANDMARKS = "pose_landmark_full.tflite"
DETECT_EVERY = 8  # frames
MAX_PEOPLE = 8
TILE_PARTS = (0.5,)  # of the shorter side: far people are small in the detector's 224 pixels
MARGIN = 0.1  # of the sides of the box around a body's points, on each side
PADDING = 1.25  # of the circle around a body, as MediaPipe's
MIN_PRESENCE = 0.5


@dataclass(frozen=True, eq=False)
class Person:
    """Someone in a frame.

    Attributes:
        landmarks: [33, 3] BlazePose's points in pixels, with visibility in [0, 1].
        region: The square around the body, turned so that it stands upright.
    """

    landmarks: np.ndarray
    region: Region

    @property
    def head(self) -> tuple[np.ndarray, np.ndarray]:
        """Upper left and lower right corner around its points."""
        points = self.landmarks[:11, :2]
        return points.min(0), points.max(0)

    def box(self) -> list[float]:
        """Left, top, right and bottom around all points, with a margin."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        margin = MARGIN * (high - low)
        return [*(low - margin).tolist(), *(high + margin).tolist()]


def example() -> tuple[Tensor, list[Person]]:
    """A gray frame [H, W, 3] and someone in it, on whom a model is tried once it is loaded."""
    landmarks = np.repeat([[16.0, 12, 1], [48, 36, 1]], [16, 17], axis=0)
    return torch.full((48, 64, 3), 0.5), [Person(landmarks, Region(32, 24, 40, 40))]


class People:
    """Follows the people of a clip through its frames, in order.

    Args:
        most: People in a frame; the surest are followed.
    """

    def __init__(self, most: int = MAX_PEOPLE) -> None:
        self._most = most
        self._regions: list[Region] = []
        self._num_frames = 0

    def next(self, frame: Tensor) -> list[Person]:
        """The people in the next frame [H, W, 3] float in [0, 1]; those who were followed come first."""
        if self._num_frames % DETECT_EVERY == 0 or not self._regions:
            self._regions = _merged(self._regions, find_people(frame, most=self._most), self._most)
        self._num_frames += 1
        people: list[Person] = []
        for region in self._regions:
            person = _look(frame, region)
            if person is not None and not _is_there(person, people):
                people.append(person)
        self._regions = [person.region for person in people]
        return people


def find_people(frame: Tensor, *, most: int = MAX_PEOPLE) -> list[Region]:
    """Regions of the people in a frame [H, W, 3]: of all of it, and of tiles for those far away."""
    near = detect(PERSON, frame, [Region.around(frame)])
    far = detect(PERSON, frame, far_places(PERSON, frame, TILE_PARTS))
    people = distinct_people([*near, *far], most)
    return [_body_region(person.points[0], person.points[1]) for person in people]


def _body_region(hips: np.ndarray, circle: np.ndarray) -> Region:
    """The square around a body, turned so that it stands upright."""
    dx, dy = circle - hips
    side = 2 * PADDING * math.hypot(dx, dy)
    return Region(float(hips[0]), float(hips[1]), side, side, math.pi / 2 - math.atan2(-dy, dx))


def _merged(tracks: Sequence[Region], detections: Sequence[Region], most: int) -> list[Region]:
    """People that are followed, and those that are new."""
    merged = list(tracks)
    for region in detections:
        if not _is_near(region, merged):
            merged.append(region)
    return merged[:most]


def _is_near(region: Region, others: Sequence[Region]) -> bool:
    """True if a region shows one of the others' people."""
    return any(
        math.hypot(region.x - other.x, region.y - other.y) < 0.2 * max(region.width, other.width)
        for other in others
    )


def _is_there(person: Person, others: Sequence[Person]) -> bool:
    """True if the same person was cut out twice: the bodies are near, or the nose is in the other's head."""
    nose = person.landmarks[0, :2]
    in_head = any((low <= nose).all() and (nose <= high).all() for low, high in (o.head for o in others))
    return in_head or _is_near(person.region, [other.region for other in others])


def _look(frame: Tensor, region: Region) -> Person | None:
    """The person in a region; None where nobody is."""
    model = load_model(LANDMARKS)
    values, presence, *_ = model(region.cut(frame, model.width, model.height))
    if presence[0] < MIN_PRESENCE:
        return None
    points = values.reshape(-1, 5)
    places = region.to_frame(points[:, :2] / model.width)
    visibility = sigmoid(np.minimum(points[:, 3], points[:, 4]))
    landmarks = np.concatenate([places, visibility[:, None]], axis=1)[:NUM_LANDMARKS]
    return Person(landmarks, _body_region(places[33], places[34]))
