"""What all annotators have in common.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..signals.frames import check_frames


class Box(NamedTuple):
    """A rectangle in pixels of the frame, right and bottom exclusive, and its score in [0, 1]."""

    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0

    def within(self, width: int, height: int, *, expand: float = 0.0) -> dict[str, int] | None:
        """The box as detectors' nodes give it: x, y, width and height in whole pixels of a frame.

        Args:
            width, height: Of the frame.
            expand: Added on each side, as a part of the box's own side.

        Returns:
            None where nothing of it is inside the frame.
        """
        dx, dy = expand * (self.right - self.left), expand * (self.bottom - self.top)
        left, top = max(0, math.floor(self.left - dx)), max(0, math.floor(self.top - dy))
        right, bottom = min(width, math.ceil(self.right + dx)), min(height, math.ceil(self.bottom + dy))
        if right <= left or bottom <= top:
            return None
        return {"x": left, "y": top, "width": right - left, "height": bottom - top}


@dataclass(frozen=True, eq=False)
class Annotation:
    """Controls, masks, key points and boxes of a clip; each may be missing.

    Attributes:
        control: [F, H, W, 3] float in [0, 1]: the control video, drawn as the nodes draw it.
        masks: [F, H, W] float in [0, 1]: 1 = subject.
        keypoints: One dict a frame, OpenPose's JSON; see `vdot_core.signals.parse_keypoints`.
        boxes: The boxes of each frame.
        estimator: What made it, in words.
        facts: Plain numbers, by name.
    """

    estimator: str
    control: Tensor | None = None
    masks: Tensor | None = None
    keypoints: list[dict[str, Any]] | None = None
    boxes: list[list[Box]] | None = None
    facts: dict[str, float] = field(default_factory=dict)


class Annotator(ABC):
    """An annotator; its model is read at its first run.

    Attributes:
        name: Its name in configurations.
        version: Raised with every change of its results.
        needs: Its packages and weights, in words.

    Args:
        model: Folder or file of its model, where it has no fixed one or another can take its place.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs: ClassVar[str]

    def __init__(self, model: str | Path | None = None) -> None:
        self.model = None if model is None else Path(model)

    def missing(self) -> str | None:
        """A sentence on what is missing here and what to do; None where it can run."""
        return None

    def run(self, frames: Tensor) -> Annotation:
        """Annotate a clip.

        Args:
            frames: [F, H, W, 3] float in [0, 1].

        Raises:
            ValueError: Not such a clip, or something is missing.
        """
        return self.annotate(self.checked(frames))

    def checked(self, frames: Tensor) -> Tensor:
        """A clip that can be annotated here, on the CPU.

        Raises:
            ValueError: As for `run`.
        """
        if reason := self.missing():
            raise ValueError(reason)
        check_frames(frames)
        return frames.cpu()

    @abstractmethod
    def annotate(self, frames: Tensor) -> Annotation:
        """As `run`, where nothing is missing."""
