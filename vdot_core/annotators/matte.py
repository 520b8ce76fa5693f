"""Masks of people by MediaPipe's selfie segmentation or SAM; far people are found first and cut out.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..progress import steps
from ..scratch import empty
from .annotator import Annotation, Annotator
from .detectors import PERSON
from .models import load_model, missing_models
from .people import LANDMARKS, People
from .regions import Region
from .sam import Sam, missing_sam

SEGMENTATION = "selfie_segmentation.tflite"
LARGE = 0.75  # of the frame's shorter side: such people fill the frame as in the network's training
CLOSE = 0.8  # of the region around a body that is cut out


class Matte(Annotator):
    """Soft masks of people.

    Args:
        model: Folder of a SAM 2 or 3 of transformers for the people that BlazePose finds; None: selfie
            segmentation.
    """

    name, version = "matte", 3
    needs = "LiteRT, and selfie segmentation and BlazePose by `python dev.py annotators`"

    def __init__(self, model: str | Path | None = None) -> None:
        super().__init__(model)
        self._sam: Sam | None = None

    def missing(self) -> str | None:
        """See `missing_models` and `missing_sam`."""
        reason = missing_models(self.name, SEGMENTATION, PERSON, LANDMARKS)
        return reason or (missing_sam(self.model) if self.model else None)

    def annotate(self, frames: Tensor) -> Annotation:
        """Masks of all frames, 1 = person."""
        if self.model and self._sam is None:
            self._sam = Sam(self.model)
        masks = empty(frames.shape[:3]).zero_()
        people = People()
        for index in steps(range(len(frames))):
            persons = people.next(frames[index])
            if self._sam:
                masks[index] = self._sam(frames[index], persons)
            else:
                masks[index] = segment(frames[index], [person.region for person in persons])
        return Annotation(self._sam.name if self._sam else "MediaPipe selfie segmentation", masks=masks)


def segment(frame: Tensor, people: list[Region]) -> Tensor:
    """The mask of a frame.

    Args:
        frame: [H, W, 3] float in [0, 1].
        people: Regions of the people in it.

    Returns:
        [H, W] float in [0, 1].
    """
    height, width = frame.shape[:2]
    small = [region for region in people if region.width < LARGE * min(width, height)]
    places = [Region(r.x, r.y, CLOSE * r.width, CLOSE * r.width) for r in small]
    if len(small) == len(people) and small:
        mask = torch.zeros(height, width)
    else:
        mask = _mask(frame, Region(width / 2, height / 2, width, height))
    for place in places:
        mask = torch.maximum(mask, _mask(frame, place))
    return mask


def _mask(frame: Tensor, region: Region) -> Tensor:
    """What the network says of a region, placed in the frame."""
    model = load_model(SEGMENTATION)
    values = model(region.cut(frame, model.width, model.height))[0]
    soft = torch.from_numpy(np.ascontiguousarray(values[..., 0]))
    return region.paste(soft, *frame.shape[:2]).clamp(0, 1)
