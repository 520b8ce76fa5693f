"""Boxes of a detector as masks: faces for references, people or things to regenerate.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..choices import BOXES
from ..memory import MASK
from ..progress import steps
from ..scratch import empty
from ..text import counted, listed
from .checks import as_list, check_volume, described, real, whole
from .lengths import fit_length
from .tracks import box_tracks, refuse_fractions

MAX_BOXES = 10_000
"""In one frame."""
FORM = "expected x, y, width and height in pixels; connect the boxes of a detector, or such ones"


def box_masks(boxes: Any, *, width: int, height: int, num_frames: int = 1, which: str = "all") -> Tensor:
    """Masks that are 1 inside detected boxes.

    Args:
        boxes: ComfyUI's BOUNDING_BOX: one dict of x, y, width and height in pixels, a list of dicts (for
            every frame), or a list with such a list, or None, for each frame (or a single one, for every
            frame). Other keys, such as score, do not matter.
        width, height, num_frames: of the clip in which they were found.
        which: 'all' boxes of a frame, only the 'largest', or only the 'first' (a detector's most confident).
    Returns:
        [F, H, W] float32 of 0 and 1; a pixel that a box touches is inside. A frame without boxes is empty.
    Raises:
        ValueError: the boxes are of another form, or there are lists for another number of frames.
    """
    width, height = whole("width", width, 1), whole("height", height, 1)
    num_frames = whole("num_frames", num_frames, 1)
    check_volume(num_frames, width, height, MASK)
    if not isinstance(which, str) or which not in BOXES:
        raise ValueError(f"which is {described(which)}, expected one of {', '.join(BOXES)}")
    masks = empty((num_frames, height, width)).zero_()
    drawn: dict[int, Tensor] = {}  # one list often serves every frame
    per_frame = boxes_per_frame(boxes, num_frames)[0]
    every = {id(own): own for own in per_frame}
    placed = {key: [_corners(box) for box in own] for key, own in every.items()}
    refuse_fractions("boxes", (side for own in placed.values() for corners in own for side in corners))
    for mask, frame_boxes in zip(masks, steps(per_frame), strict=True):
        if id(frame_boxes) in drawn:
            mask.copy_(drawn[id(frame_boxes)])
            continue
        drawn[id(frame_boxes)] = mask
        corners = placed[id(frame_boxes)]
        if which != "all":
            corners = corners[:1] if which == "first" else sorted(corners, key=_area)[-1:]
        for left, top, right, bottom in corners:
            x = slice(max(0, math.floor(left)), max(0, math.ceil(right)))
            y = slice(max(0, math.floor(top)), max(0, math.ceil(bottom)))
            mask[y, x] = 1
    return masks


def boxes_per_frame(boxes: Any, num_frames: int) -> tuple[list[list], list[str]]:
    """A list of boxes for each frame, and notes where a few frames' lists were missing or too many.

    Args:
        boxes: as for `box_masks`.
        num_frames: length of the clip in which they were found.
    Raises:
        ValueError: there are lists for another number of frames, or more than `MAX_BOXES` in one.
    """
    if isinstance(boxes, Mapping):
        return [[boxes]] * num_frames, []
    boxes = as_list(boxes, "boxes")
    if boxes and all(entry is None for entry in boxes):  # a detector that found nothing
        return [[]] * num_frames, []
    if not any(isinstance(entry, (list, tuple)) for entry in boxes):
        return [_bounded(boxes, "boxes")] * num_frames, _find_one_each(boxes, num_frames)
    frames = [_bounded(_as_boxes(entry), f"boxes of frame {index}") for index, entry in enumerate(boxes)]
    if len(frames) == 1:
        return frames * num_frames, []
    frames, notes = fit_length(frames, num_frames, "the list of boxes", "the clip")
    if len(frames) != num_frames:
        raise ValueError(
            f"there are boxes for {counted(len(frames), 'frame')}, the clip has {num_frames}; "
            "find them in the same clip, or give one list for all frames"
        )
    return frames, notes


def _find_one_each(boxes: list, num_frames: int) -> list[str]:
    """A note where a single list may be one of a box for each frame."""
    if len(boxes) != num_frames or num_frames == 1:
        return []
    return [
        f"{counted(num_frames, 'box')} for as many frames: all are in every frame; for one in each, give a "
        "list for each frame"
    ]


def track_boxes(boxes: Any, num_frames: int) -> list[list[dict[str, int]]]:
    """Boxes over time as a detector gives them: by frame a dict of x, y, width and height of each thing.

    Args:
        boxes, num_frames: as in `layout`.
    Raises:
        ValueError: a box has no area, or a shape or number is wrong.
    """
    tracks = box_tracks(boxes, whole("num_frames", num_frames, 1))
    return [
        [
            {"x": left, "y": top, "width": right - left, "height": bottom - top}
            for left, top, right, bottom in frame
        ]
        for frame in zip(*tracks, strict=True)
    ]


def _as_boxes(entry: Any) -> Any:
    """What a detector gives for a frame in which it found one box, or none."""
    if entry is None:
        return []
    return [entry] if isinstance(entry, Mapping) else entry


def _bounded(boxes: Any, name: str) -> list:
    """The list of one frame itself, so that frames with the same one are known."""
    boxes = boxes if isinstance(boxes, list) else as_list(boxes, name)
    if len(boxes) > MAX_BOXES:
        raise ValueError(
            f"{name} holds {counted(len(boxes), 'box')}, expected at most {MAX_BOXES} in a frame; keep the "
            "best ones in the detector"
        )
    return boxes


def _corners(box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, Mapping) or not {"x", "y", "width", "height"} <= set(box):
        got = f"a table of {listed(box, 6)}" if isinstance(box, Mapping) else described(box)
        raise ValueError(f"a box is {got}, {FORM}")
    x, y = (real(f"a box's {name}", box[name], -1e6, 1e6) for name in ("x", "y"))
    width, height = (real(f"a box's {name}", box[name], 0.0, 1e6) for name in ("width", "height"))
    return x, y, x + width, y + height


def _area(corners: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = corners
    return (right - left) * (bottom - top)
