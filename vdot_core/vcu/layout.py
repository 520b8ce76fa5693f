"""Builders that say where things are: boxes drawn on white, and an image whose subject follows a box.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .canvas import as_clip
from .compose import compose
from .extension import extend
from .tasks import control, text
from .unit import VCU

LINE_WIDTH = 2
BLACK = (0.0, 0.0, 0.0)


def layout(
    boxes: Tensor | Sequence[Tensor],
    *,
    width: int,
    height: int,
    num_frames: int,
    colors: Sequence[tuple[float, float, float]] | None = None,
    line_width: int = LINE_WIDTH,
    strength: float = 1.0,
) -> VCU:
    """Let boxes guide where things are: outlines on white, as VACE's layout annotator draws them.

    For frames that are drawn already use `control`.

    Args:
        boxes: [K, 4] (left, top, right, bottom) in pixels of the canvas at K moments spread evenly over the
            video, moved linearly between; K = 1 stands still. A sequence of such for several things.
        width, height, num_frames: canvas and length, snapped as in `text`.
        colors: one (r, g, b) in [0, 1] per thing; None = black.
        line_width: of the outline, in pixels.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: a box has no area or lies outside the canvas, or colours and boxes differ in number.
    """
    canvas = text(width, height, num_frames)
    tracks = _tracks(boxes)
    colors = [BLACK] * len(tracks) if colors is None else list(colors)
    if len(colors) != len(tracks):
        raise ValueError(f"{len(colors)} colours for {len(tracks)} boxes; give one colour for every box")
    frames = torch.ones(canvas.num_frames, canvas.height, canvas.width, 3)
    for track, color in zip(tracks, colors, strict=True):
        for index, box in enumerate(_interpolate(track, canvas.num_frames)):
            _draw(frames[index], box, torch.tensor(color), line_width)
    unit = control(frames, strength=strength)
    return unit.replace(notes=canvas.notes + unit.notes)


def move(
    image: Tensor,
    boxes: Tensor | Sequence[Tensor],
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    colors: Sequence[tuple[float, float, float]] | None = None,
    strength: float = 1.0,
) -> VCU:
    """Set an image in motion: it is the first frame, and boxes say where its subject goes.

    Args:
        image: [H, W, 3] or [1, H, W, 3] float in [0, 1].
        boxes, colors, num_frames, strength: as in `layout`; boxes in pixels of the canvas.
        width, height: canvas; None = the image's own size. Snapped to multiples of 16.
    """
    clip, _ = as_clip(image, "image")
    if len(clip) != 1:
        raise ValueError(f"image holds {len(clip)} images, expected one")
    start = extend(clip, num_frames=num_frames, width=width, height=height, strength=strength)
    guide = layout(
        boxes,
        width=start.width,
        height=start.height,
        num_frames=start.num_frames,
        colors=colors,
        strength=strength,
    )
    return compose(start, guide)


def _tracks(boxes: Tensor | Sequence[Tensor]) -> list[Tensor]:
    if isinstance(boxes, Tensor) and boxes.ndim == 2:
        boxes = [boxes]
    tracks = [torch.as_tensor(track, dtype=torch.float32) for track in boxes]
    if tracks and all(track.ndim == 1 for track in tracks):
        tracks = [torch.stack(tracks)]
    if not tracks:
        raise ValueError("no box was given; give at least one (left, top, right, bottom)")
    for index, track in enumerate(tracks):
        if track.ndim != 2 or track.shape[1] != 4 or not len(track):
            raise ValueError(
                f"box {index + 1} has shape {list(track.shape)}, expected [K, 4] (left, top, right, bottom)"
            )
        if not bool(((track[:, 2] > track[:, 0]) & (track[:, 3] > track[:, 1])).all()):
            raise ValueError(f"box {index + 1} has no area; expected left < right and top < bottom")
    return tracks


def _interpolate(track: Tensor, num_frames: int) -> list[list[int]]:
    at = torch.linspace(0, len(track) - 1, num_frames)
    low = at.floor().long().clamp(max=max(0, len(track) - 2))
    part = (at - low)[:, None]
    boxes = track[low] * (1 - part) + track[(low + 1).clamp(max=len(track) - 1)] * part
    return boxes.round().long().tolist()


def _draw(frame: Tensor, box: list[int], color: Tensor, line_width: int) -> None:
    """Draw a box's outline into [H, W, 3], clipped at the border."""
    height, width = frame.shape[:2]
    left, top, right, bottom = box
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise ValueError(f"box {box} lies outside the canvas of {width}x{height}")
    x0, x1 = max(0, left), min(width, right)
    y0, y1 = max(0, top), min(height, bottom)
    for edge in (
        (slice(y0, y1), slice(max(0, left), max(0, left + line_width))),
        (slice(y0, y1), slice(max(0, right - line_width), max(0, right))),
        (slice(max(0, top), max(0, top + line_width)), slice(x0, x1)),
        (slice(max(0, bottom - line_width), max(0, bottom)), slice(x0, x1)),
    ):
        frame[edge] = color
