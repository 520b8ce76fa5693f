"""Faces by MediaPipe's full-range detector: boxes and masks.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from torch import Tensor

from ..progress import steps
from ..scratch import empty
from .annotator import Annotation, Annotator, Box
from .detectors import FACE, detect, distinct_faces, far_places
from .models import missing_models
from .regions import Region

MAX_FACES = 16
TILE_PARTS = (0.6,)


class Face(Annotator):
    """Boxes of faces, and masks that fill them."""

    name, version = "face", 2
    needs = "LiteRT, and the face detector by `python dev.py annotators`"

    def missing(self) -> str | None:
        """See `missing_models`."""
        return missing_models(self.name, FACE)

    def annotate(self, frames: Tensor) -> Annotation:
        """Boxes of each frame, the best first; `num_faces` is their mean number."""
        height, width = frames.shape[1:3]
        masks = empty(frames.shape[:3]).zero_()
        boxes: list[list[Box]] = []
        for index in steps(range(len(frames))):
            frame = frames[index]
            places = [Region.around(frame), *far_places(FACE, frame, TILE_PARTS)]
            faces = distinct_faces(detect(FACE, frame, places), MAX_FACES)
            boxes.append([Box(*(float(side) for side in face.box), face.score) for face in faces])
            for box in boxes[-1]:
                if inside := box.within(width, height):
                    left, top = inside["x"], inside["y"]
                    masks[index, top : top + inside["height"], left : left + inside["width"]] = 1
        mean = sum(map(len, boxes)) / len(boxes)
        return Annotation("MediaPipe face detection", masks=masks, boxes=boxes, facts={"num_faces": mean})
