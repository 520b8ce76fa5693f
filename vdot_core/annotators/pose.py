"""Poses of bodies by BlazePose, of faces by MediaPipe's mesh.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ..progress import steps
from ..signals import draw_pose
from .annotator import Annotation, Annotator
from .detectors import PERSON, sigmoid
from .models import load_model, missing_models
from .openpose_points import body_points, face_points
from .people import LANDMARKS, MAX_PEOPLE, MIN_PRESENCE, People
from .regions import Region

MESH = "face_landmark.tflite"
RIGHT_HIP = 8
MIN_FACE_PX = 24.0
FACE_SIZE = 1.6  # of the distance of the ears, as wide as MediaPipe cuts faces


class Pose(Annotator):
    """Skeletons of body and face, drawn as VDOT Draw Pose does; hands are not estimated."""

    name, version = "pose", 2
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
    people = People(most)
    result = []
    for index in steps(range(len(frames))):
        crowd = [_person(frames[index], person.landmarks) for person in people.next(frames[index])]
        crowd.sort(key=lambda person: person["pose_keypoints_2d"][3 * RIGHT_HIP])
        result.append({"people": crowd, "canvas_width": width, "canvas_height": height})
    return result


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
