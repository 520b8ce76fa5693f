"""Poses of bodies by BlazePose or ViTPose, of faces by MediaPipe's mesh.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

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
from .vitpose import VitPose, missing_vitpose

MESH = "face_landmark.tflite"
RIGHT_HIP = 8
MIN_FACE_PX = 24.0
FACE_SIZE = 1.6  # of the distance of the ears, as wide as MediaPipe cuts faces


class Pose(Annotator):
    """Skeletons of body and face, drawn as VDOT Draw Pose does; hands are not estimated.

    Args:
        model: Folder of a ViTPose of transformers for the joints of the people that BlazePose finds; None:
            BlazePose's own.
    """

    name, version = "pose", 2
    needs = "LiteRT, and BlazePose and the face mesh by `python dev.py annotators`"

    def __init__(self, model: str | Path | None = None) -> None:
        super().__init__(model)
        self._bodies: VitPose | None = None

    def missing(self) -> str | None:
        """See `missing_models` and `missing_vitpose`."""
        reason = missing_models(self.name, PERSON, LANDMARKS, MESH)
        return reason or (missing_vitpose(self.model) if self.model else None)

    def annotate(self, frames: Tensor) -> Annotation:
        """Key points in pixels of the frames, and their drawing."""
        if self.model and self._bodies is None:
            self._bodies = VitPose(self.model)
        keypoints = estimate_poses(frames, bodies=self._bodies)
        height, width = frames.shape[1:3]
        drawing = draw_pose(keypoints, width=width, height=height, coordinates="pixels")
        people = sum(len(frame["people"]) for frame in keypoints) / len(keypoints)
        return Annotation(
            "ViTPose" if self._bodies else "BlazePose full",
            control=drawing,
            keypoints=keypoints,
            facts={"num_people": people},
        )


def estimate_poses(frames: Tensor, *, most: int = MAX_PEOPLE, bodies: VitPose | None = None) -> list[dict]:
    """OpenPose's JSON of a clip.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        most: People in a frame; the surest are followed.
        bodies: Estimates the joints of people that were found; None: BlazePose's.

    Returns:
        One dict a frame, see `parse_keypoints`; people by the place of their hips, from the left.
    """
    height, width = frames.shape[1:3]
    people = People(most)
    result = []
    for index in steps(range(len(frames))):
        seen = people.next(frames[index])
        joints = bodies(frames[index], seen) if bodies else [body_points(one.landmarks) for one in seen]
        crowd = [_person(frames[index], one.landmarks, body) for one, body in zip(seen, joints, strict=True)]
        crowd.sort(key=lambda person: person["pose_keypoints_2d"][3 * RIGHT_HIP])
        result.append({"people": crowd, "canvas_width": width, "canvas_height": height})
    return result


def _person(frame: Tensor, landmarks: np.ndarray, body: np.ndarray) -> dict:
    """OpenPose's JSON of a person of these landmarks and joints."""
    person = {"pose_keypoints_2d": body.ravel().tolist()}
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
