"""Builders for positions of objects: boxes or contours on white, and an image with a moving subject.

Shape letters: F pixel frames, H W pixels, N things.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..choices import MAX_LINE_WIDTH
from ..memory import MASK, RGB
from ..progress import steps
from ..raster import disc, paint, pen_radius
from ..scratch import empty
from ..text import counted
from .canvas import as_clip, rounding_named, target_size
from .checks import as_list, as_tensor, check_volume, real, whole
from .extension import extend
from .grow import contours
from .masks import as_mask, augment, find_lost, fit_mask
from .span import Moment
from .tasks import control, text
from .tracks import Boxes, box_tracks
from .unit import VCU, built

LINE_WIDTH = 2
CONTOUR_WIDTH = 3
BLACK = (0.0, 0.0, 0.0)

Color = tuple[float, float, float]


def layout(
    boxes: Boxes | Sequence[Boxes],
    *,
    width: int,
    height: int,
    num_frames: int,
    colors: Sequence[Color] | None = None,
    line_width: int = LINE_WIDTH,
    strength: float | Sequence[float] = 1.0,
    start: Moment = None,
    end: Moment = None,
) -> VCU:
    """Guide the positions of objects by boxes: outlines on white, as VACE's layout annotator draws them.

    For frames that are drawn already use `control`, for masks `layout_masks`, for a drawn path `path_boxes`.

    Args:
        boxes: [K, 4] (left, top, right, bottom) in pixels of the canvas at K moments spread evenly over the
            video, moved linearly between; K = 1 stands still, K = F is a box for every frame. Or a mapping
            frame number -> box (-1 = last frame), which stands still before the first and after the last. A
            sequence of such for several things. A box may leave the canvas, but not in every frame.
        width, height, num_frames: canvas and length, snapped as in `text`.
        colors: one (r, g, b) in [0, 1] per thing; None = black.
        line_width: OpenCV's thickness of the outline: 1 paints 1 pixel, 2 (VACE's) 3, 3 and 4 paint 5. The
            outline is centered on the box's coordinates.
        strength, start, end: as in `control`.
    Raises:
        ValueError: a box has no area or lies outside the canvas, or colors and boxes differ in number.
    """
    canvas = text(width, height, num_frames)
    with rounding_named(canvas.notes):
        tracks = box_tracks(boxes, canvas.num_frames)
    line_width = whole("line_width", line_width, 1, MAX_LINE_WIDTH)
    check_volume(canvas.num_frames, canvas.width, canvas.height, RGB)
    frames = empty((canvas.num_frames, canvas.height, canvas.width, 3)).fill_(1)
    with rounding_named(canvas.notes):
        _draw_tracks(frames, tracks, _colors(colors, len(tracks)), line_width)
        unit = control(frames, strength=strength, start=start, end=end)
    return unit.replace(notes=canvas.notes + unit.notes)


def layout_masks(
    masks: Tensor | Sequence[Tensor],
    *,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    mask_shape: str = "original",
    expand: float = 0.0,
    colors: Sequence[Color] | None = None,
    line_width: int = CONTOUR_WIDTH,
    strength: float | Sequence[float] = 1.0,
    start: Moment = None,
    end: Moment = None,
    names: Sequence[str] | None = None,
) -> VCU:
    """Guide the positions of objects by contours of masks, as VACE's layout of a tracked mask.

    Args:
        masks: [F, H, W] float in [0, 1] of one thing, or several of one size; one
            of a single frame holds for all frames.
        width, height, num_frames: canvas and length; None = the masks' own. Fitted as in `control`.
        mask_shape, expand: 'box' draws the masks' boxes, 'hull' their hulls; see `augment`.
        colors: one (r, g, b) in [0, 1] per thing; None = black.
        line_width: OpenCV's thickness of the contour: 3 (VACE's) paints 5 pixels, see `layout`.
        strength, start, end: as in `control`.
        names: what to call each mask in messages; None = 'mask 1', ..
    Raises:
        ValueError: masks differ in shape, one is empty in every frame, or a shape, dtype or range is wrong.
    """
    things = [masks] if hasattr(masks, "shape") else as_list(masks, "masks")
    names = [f"mask {number}" for number in range(1, len(things) + 1)] if names is None else names
    expected = "[F, H, W] float in [0, 1]"
    things = [as_tensor(mask, name, expected) for mask, name in zip(things, names, strict=True)]
    if not things:
        raise ValueError("no mask was given; give at least one [F, H, W]")
    line_width = whole("line_width", line_width, 1, MAX_LINE_WIDTH)
    # A still mask holds for the whole length of the tracked ones, in any order.
    lead = next((number for number, mask in enumerate(things) if mask.ndim and len(mask) > 1), 0)
    first = things[lead]
    if first.ndim != 3 or not first.numel():
        raise ValueError(
            f"{names[lead]} has shape {list(first.shape)}, expected [F, H, W]; give one mask per frame"
        )
    width, height, notes = target_size((first.shape[2], first.shape[1]), width, height)
    check_volume(len(first), width, height, RGB + MASK)
    frames = empty((len(first), height, width, 3)).fill_(1)
    for name, mask, color in zip(names, things, _colors(colors, len(things)), strict=True):
        mask, more = as_mask(mask, len(first), *first.shape[1:], name, owner=names[lead])
        source = augment(mask, mask_shape, expand)
        mask = fit_mask(source, width, height)
        if mask.amax() == 0:
            raise ValueError(f"{name} is empty in every frame; make the thing white in it, or disconnect it")
        notes += more + find_lost(source, mask, name)
        for index in steps(range(len(frames))):
            frames[index].numpy()[contours(mask[index].bool().cpu().numpy(), line_width)] = color
    unit = control(frames, num_frames=num_frames, strength=strength, start=start, end=end)
    return unit.replace(notes=(*notes, *unit.notes))


def move(
    image: Tensor,
    boxes: Boxes | Sequence[Boxes],
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    colors: Sequence[Color] | None = None,
    strength: float | Sequence[float] = 1.0,
) -> VCU:
    """Set an image in motion: it is the first frame, and boxes say where its subject goes.

    As in VACE's MoveAnythingAnnotator, the first box is drawn in frame 1, the first that is generated: it
    surrounds the subject in the image, frame 0.

    Args:
        image: [H, W, 3] or [1, H, W, 3] float in [0, 1].
        boxes, colors, num_frames, strength: as in `layout`, but K boxes are spread over frames 1 to the last
            (unless K = F), and a box of frame 0 counts for frame 1. Boxes are in pixels of the canvas.
        width, height: canvas; None = the image's own size. Snapped to multiples of 16.
    """
    clip, notes = as_clip(image, "image")
    if len(clip) != 1:
        raise ValueError(f"image holds {len(clip)} images, expected one; give the video's first frame")
    start = extend(clip, num_frames=num_frames, width=width, height=height, strength=strength)
    start = start.replace(notes=(*notes, *start.notes))
    with rounding_named(start.notes):
        tracks = box_tracks(boxes, start.num_frames, first=1)
        # As `compose(start, layout(..))`, but the three units share a tensor: composing grays hidden pixels.
        frames = start.frames
        frames[1:] = 1.0
        _draw_tracks(frames[1:], [track[1:] for track in tracks], _colors(colors, len(tracks)), LINE_WIDTH)
    guide = control(frames, strength=strength)
    return built(
        frames,
        start.masks,
        kind=start.kind,
        strength=start.strength,
        notes=tuple(dict.fromkeys(start.notes + guide.notes)),
        parts=(start, guide),
    )


def _colors(colors: Sequence[Color] | None, count: int) -> list[np.ndarray]:
    """One color for each thing."""
    colors = [BLACK] * count if colors is None else as_list(colors, "colors")
    if len(colors) != count:
        raise ValueError(
            f"{counted(len(colors), 'color')} for {counted(count, 'box')}; give one color for every box"
        )
    checked = []
    for number, color in enumerate(colors, 1):
        parts = [real(f"color {number}", part, 0.0, 1.0) for part in as_list(color, f"color {number}")]
        if len(parts) != 3:
            raise ValueError(
                f"color {number} has {counted(len(parts), 'number')}, expected 3; give (red, green, blue)"
            )
        checked.append(np.array(parts, dtype=np.float32))
    return checked


def _draw_tracks(
    frames: Tensor, tracks: list[list[list[int]]], colors: list[np.ndarray], line_width: int
) -> None:
    """Draw every thing's box into [F, H, W, 3] in order; ValueError for one that is never visible."""
    height, width = frames.shape[1:3]
    for number, (track, color) in enumerate(zip(tracks, colors, strict=True), 1):
        visible = [
            _draw_box(frames[f].numpy(), track[f], color, line_width) for f in steps(range(len(track)))
        ]
        if not any(visible):
            raise ValueError(
                f"box {number}, {track[0]}, lies outside the canvas of {width}x{height}; move it in"
            )


def _draw_box(frame: np.ndarray, box: list[int], color: np.ndarray, line_width: int) -> bool:
    """Draw `cv2.rectangle` into [H, W, 3], clipped at the border; False where the box lies outside."""
    height, width = frame.shape[:2]
    left, top, right, bottom = box
    if right < 0 or bottom < 0 or left >= width or top >= height:
        return False
    reach = pen_radius(line_width)
    for x in (left, right):
        frame[max(0, top) : bottom + 1, max(0, x - reach) : max(0, x + reach + 1)] = color
        for y in (top, bottom):
            paint(frame, disc((x, y), reach), color)
    for y in (top, bottom):
        frame[max(0, y - reach) : max(0, y + reach + 1), max(0, left) : right + 1] = color
    return True
