"""Sizes at which a model works best: classes such as 480p, fitted to the shape of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from ..text import counted
from .canvas import rounded_length
from .checks import whole
from .unit import SIZE_MULTIPLE

FRAME_RATE = 16.0
"""Frames per second of Wan 2.1's training clips."""
NARROWEST = 1 / 8
"""Shorter to longer side; narrower clips are cropped."""
SMALL = 1 / 4
"""A clip with less than this part of the pixels has nothing that the model could show sharply."""


@dataclass(frozen=True)
class VideoSize:
    """A class of video sizes of about the same number of pixels.

    Args:
        name: such as "480p".
        width, height: its size for a landscape clip, in pixels; multiples of 16.
        most_frames: longest video that the model was trained on, 4n+1.
        fps: frames per second of its training clips.
        gray: weights of the gray controls that the model was trained on, as `signals.to_gray` takes them.
    """

    name: str
    width: int
    height: int
    most_frames: int = 81
    fps: float = FRAME_RATE
    gray: str = "vace"

    def __str__(self) -> str:
        length = counted(self.most_frames, "frame")
        return f"{self.name}: {self.width}x{self.height}, {length} at {self.fps:g} fps"

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """The size of this class for a clip's shape, as VACE's own reader chooses it.

        The number of tiles of 16x16 pixels stays within that of the class: 832x480 for 1920x1080 in 480p.

        Args:
            width, height: of the clip; only their ratio counts.
        Returns:
            (width, height), multiples of 16; portrait is landscape turned.
        """
        width, height = whole("width", width, 1), whole("height", height, 1)
        ratio = max(min(width, height) / max(width, height), NARROWEST)
        num_tiles = (self.width // SIZE_MULTIPLE) * (self.height // SIZE_MULTIPLE)
        short = max(1, round((num_tiles * ratio) ** 0.5))
        long = max(short, min(num_tiles // short, round(short / ratio)))
        sides = long * SIZE_MULTIPLE, short * SIZE_MULTIPLE
        return sides if width >= height else sides[::-1]

    def fit_length(self, num_frames: int) -> int:
        """The longest 4n+1 frames within `num_frames` and what the model was trained on."""
        return min(rounded_length(num_frames)[0], self.most_frames)

    def is_small(self, width: int, height: int) -> bool:
        """True if a clip of this size is too small to be shown well at the class's size."""
        return width * height < SMALL * self.width * self.height


SIZES = {size.name: size for size in (VideoSize("480p", 832, 480), VideoSize("720p", 1280, 720))}
"""Classes of Wan 2.1 and VACE; VACE 1.3B was trained on 480p alone."""
