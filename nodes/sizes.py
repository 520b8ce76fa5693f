"""The VDOT_SIZE type, and the size and length that a node takes from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..vdot_core.text import counted

if TYPE_CHECKING:
    from ..vdot_core.vcu import VideoSize

SizeType = io.Custom("VDOT_SIZE")
# As in vdot_core.vcu.SIZES, which is not imported before a node runs.
CLASSES = ("480p", "720p")
# Other choices of VDOT Load Clip: the model's class, and the clip's own size.
AUTO, AS_IT_IS = "auto", "as it is"


def size_input(rule: str) -> io.Input:
    """An optional input for the size that the model works best at.

    Args:
        rule: of the node: what keeps its shape, and what is taken from the size.
    """
    return SizeType.Input("size", optional=True, tooltip=f"The size of VDOT Load: {rule}")


CANVAS_RULE = (
    "width and height give only the video's shape, and length is at most what the model was made for."
)
IMAGE_RULE = (
    "the video gets the model's own size in the shape of the picture (or of width and height), and length is "
    "at most what the model was made for."
)


def chunking(size: VideoSize | None, chunk: int, overlap: int) -> tuple[int, int]:
    """Frames of a chunk and of its overlap; 0 is the model's length (81), and a fifth of the chunk."""
    chunk = chunk or (81 if size is None else size.most_frames)
    return chunk, overlap or 4 * math.ceil((chunk / 5 - 1) / 4) + 1


@dataclass(frozen=True)
class Canvas:
    """Size and length of a video.

    Args:
        width, height: in pixels.
        num_frames: its length; None: the clip decides it.
        lines: what `size` changed, for the node to say.
    """

    width: int
    height: int
    num_frames: int | None
    lines: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, int | None]:
        """As builders of vdot_core.vcu take them: a width or height of 0 means that the clip decides."""
        return {"width": self.width or None, "height": self.height or None, "num_frames": self.num_frames}


def canvas_of(
    size: VideoSize | None, width: int, height: int, length: int, shape: tuple[int, int] | None = None
) -> Canvas:
    """Width, height and length of a node where `size` is connected.

    Args:
        size: None = the numbers stay.
        width, height, length: of the node's widgets; a width or height of 0 is `shape`'s.
        shape: width and height of the picture, clip or mask that the video is made from.
    """
    if size is None:
        return Canvas(width, height, length)
    source = (width, height) if width and height else shape or (size.width, size.height)
    is_drawn = shape is None and size.is_small(*source)
    if is_drawn:
        source = size.width, size.height
    sides, num_frames = size.fit(*source), size.fit_length(length)
    lines = [f"size ({size.name}): {sides[0]}x{sides[1]}, {counted(num_frames, 'frame')}"]
    if num_frames < length:
        lines[0] += f" (length was {length}, the model was made for {size.most_frames})"
    if is_drawn:
        lines.append(
            f"width and height ({width}x{height}) are an example's, far below the model's size; give larger "
            "ones for another shape"
        )
    if shape is not None and size.is_small(*shape):
        lines.append(small_line(size, shape))
    return Canvas(*sides, num_frames, tuple(lines))


def small_line(size: VideoSize, shape: tuple[int, int]) -> str:
    """Note on a clip or picture that is too small for the model."""
    return (
        f"this is only {shape[0]}x{shape[1]}, far less than the model's {size.width}x{size.height} (drawn "
        "examples are so small): load a clip or picture of your own"
    )


def shape_of(pictures) -> tuple[int, int] | None:
    """Width and height of images [F, H, W, C] or masks [F, H, W]; None where there are none."""
    return None if pictures is None else (pictures.shape[2], pictures.shape[1])
