"""The builder that keeps a clip and generates the area around it: outpaint.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..memory import MASK, RGB
from ..scratch import empty
from .canvas import as_clip, target_length, target_size
from .checks import MAX_SIDE, check_volume, whole
from .margins import CENTER, Pads, clip_pads, grow_pads, margin_px
from .scaling import cover_size, fit_notes, lengthen, scaled_chunks
from .unit import GRAY, SIZE_MULTIPLE, VCU, built


def outpaint(
    frames: Tensor,
    *,
    left: int | float = 0,
    right: int | float = 0,
    top: int | float = 0,
    bottom: int | float = 0,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    strength: float | Sequence[float] = 1.0,
    aspect: float | str | None = None,
    anchor: tuple[float, float] = CENTER,
    feather_px: int = 0,
) -> VCU:
    """Keep a clip and generate a margin around it.

    The margin is given by its sides, or by the canvas that is to be filled: `aspect`, or `width` and `height`
    without any side.

    Args:
        frames: [F, H, W, 3] float in [0, 1], or one image for a single frame.
        left, right, top, bottom: margins: a whole number in the clip's own pixels, a float as a part of the
            clip's width or height (0.25 = a quarter). Without `width` and `height` the clip keeps its scale,
            and the margins grow to make the canvas a multiple of 16.
        width, height: canvas; clip and margins are scaled together to cover it. With neither side nor aspect
            given, the clip is scaled to fit inside it and the margins fill the rest; one of the two alone
            then leaves the other as the clip's own.
        num_frames: length; None = the clip's own. Frames beyond a shorter clip are generated.
        strength: scale of its context; see `VCU`.
        aspect: width by height of the canvas, 1.7778, '2.39' or '16:9': margins on two sides reach it.
        anchor: position of the clip in a canvas given by aspect or size: (0, 0) left or top, (1, 1) right or
            bottom.
        feather_px: how far, in pixels of the canvas, the mask reaches into the clip from every side that has
            a margin, so that the seam is regenerated. Masks are binarized when encoded, so this is VACE's
            mask blur, not a gradient; the covered pixels become gray.
    Raises:
        ValueError: no margin, a negative one, sides with an aspect, or a wrong shape, dtype or range.
    """
    clip, notes = as_clip(frames, "frames")
    rows, columns = clip.shape[1:3]
    sides = _sides_px(rows, columns, left, right, top, bottom)
    if aspect is None and not any(sides.values()) and (width is None) != (height is None):
        width, height = (columns, height) if width is None else (width, rows)
    pads = clip_pads(clip, sides, aspect, anchor, width, height)
    feather_px = whole("feather_px", feather_px, 0, MAX_SIDE)
    length = target_length(clip.shape[0], num_frames, "video")
    notes += length.notes
    clip = clip[: length.used]
    if width is None and height is None:
        placement, more = _padded(clip, pads)
    else:
        placement, more = _padded_and_covering(clip, pads, width, height)
    check_volume(length.total, placement.width, placement.height, RGB + MASK)
    visible = _feathered(placement, feather_px) if feather_px else placement.visible
    return built(
        _frames(clip, placement, visible, length.total),
        _masks(clip, placement, visible, length.total),
        kind="repaint",
        strength=strength,
        notes=notes + more,
    )


def widened_shape(
    frames: Tensor,
    *,
    left: int | float = 0,
    right: int | float = 0,
    top: int | float = 0,
    bottom: int | float = 0,
    aspect: float | str | None = None,
    anchor: tuple[float, float] = CENTER,
) -> tuple[int, int]:
    """Width and height of a clip with its margins, in the clip's own pixels; arguments as of `outpaint`."""
    rows, columns = frames.shape[1:3]
    sides = _sides_px(rows, columns, left, right, top, bottom)
    pads = clip_pads(frames, sides, aspect, anchor, None, None)
    return columns + pads.left + pads.right, rows + pads.top + pads.bottom


def _sides_px(rows: int, columns: int, left, right, top, bottom) -> dict[str, int]:
    across = {"left": margin_px("left", left, columns), "right": margin_px("right", right, columns)}
    return across | {"top": margin_px("top", top, rows), "bottom": margin_px("bottom", bottom, rows)}


@dataclass(frozen=True)
class _Placement:
    """Place of the scaled clip on its canvas.

    Attributes:
        width, height: of the canvas.
        size: (width, height) that the clip is scaled to.
        left, top: place of its corner; negative where it is cropped.
        visible: the rectangle of the canvas that shows it (left, top, right, bottom), ends exclusive.
    """

    width: int
    height: int
    size: tuple[int, int]
    left: int
    top: int
    visible: tuple[int, int, int, int]


def _frames(clip: Tensor, placement: _Placement, visible: tuple[int, int, int, int], total: int) -> Tensor:
    """[total, height, width, 3], gray outside the kept rectangle, scaled straight into it."""
    left, top, right, bottom = visible
    frames = empty((total, placement.height, placement.width, 3), clip.device).fill_(GRAY)
    rows = slice(top - placement.top, bottom - placement.top)
    columns = slice(left - placement.left, right - placement.left)
    for part, chunk in scaled_chunks(clip, *placement.size):
        frames[part, top:bottom, left:right] = chunk[:, rows, columns]
    return frames


def _masks(clip: Tensor, placement: _Placement, visible: tuple[int, int, int, int], total: int) -> Tensor:
    """[total, height, width]: 0 in the kept rectangle of the clip's frames; stored as one frame if it can."""
    left, top, right, bottom = visible
    mask = clip.new_ones(1, placement.height, placement.width)
    mask[:, top:bottom, left:right] = 0.0
    return lengthen(mask.expand(len(clip), *mask.shape[1:]), total, 1.0)


def _feathered(placement: _Placement, feather_px: int) -> tuple[int, int, int, int]:
    """The kept rectangle, smaller on every side that has a margin."""
    left, top, right, bottom = placement.visible
    if left >= right or top >= bottom:
        raise ValueError("the margins leave nothing of the video on the canvas; give smaller ones")
    inner = (
        left + feather_px * (left > 0),
        top + feather_px * (top > 0),
        right - feather_px * (right < placement.width),
        bottom - feather_px * (bottom < placement.height),
    )
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        raise ValueError(
            f"feather_px is {feather_px}, and of the clip {right - left}x{bottom - top} are on the canvas; "
            "nothing would be kept. Give a smaller one"
        )
    return inner


def _padded(clip: Tensor, pads: Pads) -> tuple[_Placement, list[str]]:
    """The clip at its own scale; a side without margin cannot grow to a multiple of 16: it is fitted."""
    height, width = clip.shape[1:3]
    new_width = (
        width if pads.left + pads.right else max(SIZE_MULTIPLE, width // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    new_height = (
        height if pads.top + pads.bottom else max(SIZE_MULTIPLE, height // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    notes = fit_notes(clip, new_width, new_height, "video")
    size = (width, height) if not notes else cover_size((width, height), new_width, new_height)
    pads, more = grow_pads(new_width, new_height, pads)
    left = pads.left - (size[0] - new_width) // 2
    top = pads.top - (size[1] - new_height) // 2
    visible = (pads.left, pads.top, pads.left + new_width, pads.top + new_height)
    canvas = new_width + pads.left + pads.right, new_height + pads.top + pads.bottom
    return _Placement(*canvas, size, left, top, visible), notes + more


def _padded_and_covering(
    clip: Tensor, pads: Pads, width: int | None, height: int | None
) -> tuple[_Placement, list[str]]:
    """The clip at its final scale, with its margins covering the canvas: no gray bleeds into kept pixels."""
    old_height, old_width = clip.shape[1:3]
    padded = old_width + pads.left + pads.right, old_height + pads.top + pads.bottom
    width, height, notes = target_size(padded, width, height)
    scale = max(width / padded[0], height / padded[1])
    x0, x1 = round(pads.left * scale), round((pads.left + old_width) * scale)
    y0, y1 = round(pads.top * scale), round((pads.top + old_height) * scale)
    full_width, full_height = cover_size(padded, width, height)
    if x0 == x1 or y0 == y1:
        raise ValueError(
            f"the video of {old_width}x{old_height} vanishes in a canvas of {width}x{height} with margins "
            f"({padded[0]}x{padded[1]} before scaling); give smaller margins or a larger width and height"
        )
    # The canvas is the center of what covers it.
    left, top = (full_width - width) // 2, (full_height - height) // 2
    across = [min(max(x - left, 0), width) for x in (x0, x1)]
    down = [min(max(y - top, 0), height) for y in (y0, y1)]
    visible = (across[0], down[0], across[1], down[1])
    placement = _Placement(width, height, (x1 - x0, y1 - y0), x0 - left, y0 - top, visible)
    note = f"video: {padded[0]}x{padded[1]} with its margins scaled to {full_width}x{full_height}"
    if (full_width, full_height) != (width, height):
        note += f" and cropped to {width}x{height}"
    return placement, notes if padded == (width, height) else [*notes, note]
