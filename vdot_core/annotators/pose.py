"""Poses by BlazePose: people are detected, each is cut out upright, and followed from frame to frame.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ..progress import steps
from ..signals import draw_pose
from .annotator import Annotation, Annotator
from .detectors import PERSON, detect, distinct_people, sigmoid
from .models import load_model, missing_models
from .openpose_points import NUM_LANDMARKS, body_points, face_points
from .regions import Region, tiles

LANDMARKS, MESH = "pose_landmark_full.tflite", "face_landmark.tflite"
DETECT_EVERY = 8  # frames
MAX_PEOPLE = 8
TILE_PARTS = (0.5,)  # of the shorter side: far people are small in the detector's 224 pixels
PADDING = 1.25  # of the circle around a body, as MediaPipe's
MIN_PRESENCE = 0.5
MIN_FACE_PX = 24.0
FACE_SIZE = 1.6  # of the distance of the ears, as wide as MediaPipe cuts faces


class Pose(Annotator):
    """Skeletons of body and face, drawn as VDOT Draw Pose does; hands are not estimated."""

    name, version = "pose", 1
    needs = "LiteRT, and BlazePose and the face mesh by `python dev.py annotators`"

    def missing(self) -> str | None:
        """See `missing_models`."""
        return missing_models(self.name, PERSON, LANDMARKS, MESH)

    def annotate(self, frames: Tensor) -> Annotation:
        """Key points in pixels of the frames, and their drawing."""
        keypoints = estimate_poses(frames)
        height, width = frames.shape[1:3]
        drawing = draw_pose(keypoints, width=width, height=height, coordinates="pixels")
        people = sum(len(frame["people"]) for frame in keypoints) / len(keypoints)
        return Annotation(
            "BlazePose full", control=drawing, keypoints=keypoints, facts={"num_people": people}
        )


def estimate_poses(frames: Tensor, *, most: int = MAX_PEOPLE) -> list[dict]:
    """OpenPose's JSON of a clip.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        most: People in a frame; the surest are followed.

    Returns:
        One dict a frame, see `parse_keypoints`; people by the place of their hips, from the left.
    """
    height, width = frames.shape[1:3]
    regions: list[Region] = []
    result = []
    for index in steps(range(len(frames))):
        frame = frames[index]
        if index % DETECT_EVERY == 0 or not regions:
            regions = _merged(regions, find_people(frame, most=most), most)
        people = []
        tracks: list[Region] = []
        heads: list[np.ndarray] = []
        for region in regions:
            landmarks, after = _landmarks(frame, region)
            if landmarks is None or _is_near(after, tracks) or _is_inside(landmarks[0], heads):
                continue
            tracks.append(after)
            heads.append(np.concatenate([landmarks[:11, :2].min(0), landmarks[:11, :2].max(0)]))
            people.append(_person(frame, landmarks))
        regions = tracks
        people.sort(key=lambda person: person["pose_keypoints_2d"][3 * 8])
        result.append({"people": people, "canvas_width": width, "canvas_height": height})
    return result


def find_people(frame: Tensor, *, most: int = MAX_PEOPLE) -> list[Region]:
    """Regions of the people in a frame [H, W, 3]: of all of it, and of tiles for those far away."""
    height, width = frame.shape[:2]
    places = [tile for part in TILE_PARTS for tile in tiles(width, height, part)]
    near, far = detect(PERSON, frame, [Region.around(frame)]), detect(PERSON, frame, places)
    people = distinct_people([*near, *far], most)
    return [_body_region(person.points[0], person.points[1]) for person in people]


def _body_region(hips: np.ndarray, circle: np.ndarray) -> Region:
    """The square around a body, turned so that it stands upright."""
    dx, dy = circle - hips
    side = 2 * PADDING * math.hypot(dx, dy)
    return Region(float(hips[0]), float(hips[1]), side, side, math.pi / 2 - math.atan2(-dy, dx))


def _merged(tracks: list[Region], detections: list[Region], most: int) -> list[Region]:
    """People that are followed, and those that are new."""
    merged = list(tracks)
    for region in detections:
        if not _is_near(region, merged):
            merged.append(region)
    return merged[:most]


def _is_near(region: Region, others: list[Region]) -> bool:
    """True if a region shows one of the others' people."""
    return any(
        math.hypot(region.x - other.x, region.y - other.y) < 0.2 * max(region.width, other.width)
        for other in others
    )


def _is_inside(nose: np.ndarray, heads: list[np.ndarray]) -> bool:
    """True if a nose lies in the head of a person that is there already: the same one, cut out twice."""
    return any((head[:2] <= nose[:2]).all() and (nose[:2] <= head[2:]).all() for head in heads)


def _landmarks(frame: Tensor, region: Region) -> tuple[np.ndarray | None, Region]:
    """[33, 3] landmarks in pixels with visibility (None: nobody is there), and the next frame's region."""
    model = load_model(LANDMARKS)
    values, presence, *_ = model(region.cut(frame, model.width, model.height))
    points = values.reshape(-1, 5)
    places = region.to_frame(points[:, :2] / model.width)
    if presence[0] < MIN_PRESENCE:
        return None, region
    visibility = sigmoid(np.minimum(points[:, 3], points[:, 4]))
    landmarks = np.concatenate([places, visibility[:, None]], axis=1)
    return landmarks[:NUM_LANDMARKS], _body_region(places[33], places[34])


def _person(frame: Tensor, landmarks: np.ndarray) -> dict:
    """OpenPose's JSON of a person."""
    person = {"pose_keypoints_2d": body_points(landmarks).ravel().tolist()}
    face = _face(frame, landmarks)
    if face is not None:
        person["face_keypoints_2d"] = face.ravel().tolist()
    return person


def _face(frame: Tensor, landmarks: np.ndarray) -> np.ndarray | None:
    """[68, 3] points of the face that a body's landmarks show; None where it is small or turned away."""
    eyes, mouth, ears = landmarks[[5, 2], :2], landmarks[[10, 9], :2], landmarks[[8, 7], :2]
    down = mouth.mean(0) - eyes.mean(0)
    size = FACE_SIZE * max(np.linalg.norm(ears[1] - ears[0]), 2.2 * np.linalg.norm(down))
    if size < MIN_FACE_PX or landmarks[0, 2] < MIN_PRESENCE:
        return None
    center = (eyes.mean(0) + mouth.mean(0)) / 2
    across = eyes[1] - eyes[0]
    angle = math.atan2(across[1], across[0])
    region = Region(float(center[0]), float(center[1]), float(size), float(size), angle)
    model = load_model(MESH)
    mesh, logit = model(region.cut(frame, model.width, model.height))
    score = float(sigmoid(logit.ravel())[0])
    if score < MIN_PRESENCE:
        return None
    return face_points(region.to_frame(mesh.reshape(-1, 3)[:, :2] / model.width), score)
