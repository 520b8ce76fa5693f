"""A small region worked on at a higher resolution: the window around a mask, and its size.

Shape letters: F pixel frames, H W pixels. A mask is 1 where the model generates, 0 where it keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..scratch import converted
from ..text import counted
from .canvas import as_clip
from .checks import real, whole
from .grow import drop_specks, mask_box
from .masks import as_mask, binarize, find_lost
from .scaling import resample
from .unit import SIZE_MULTIPLE

MAX_CROP_MARGIN = 10.0
# Stretching that nobody sees, and how far the number of pixels may be off to avoid more of it.
INVISIBLE_STRETCH = 0.01
AREA_RANGE = (0.5, 1.5)

Size = tuple[int, int]


@dataclass(frozen=True)
class Crop:
    """A window of a clip, the same for all frames, and the size at which it is worked on.

    Attributes:
        left, top, width, height: the window, in the clip's pixels.
        source: the clip's (width, height).
        size: (width, height) to which the window was scaled, multiples of 16.
        mask: [F, H, W] float, the window's mask before scaling; None = not known.
        notes: what was changed to make the inputs fit.
    """

    left: int
    top: int
    width: int
    height: int
    source: tuple[int, int]
    size: tuple[int, int]
    mask: Tensor | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the window."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def __str__(self) -> str:
        at = f"{self.width}x{self.height} at {self.left}, {self.top} of {self.source[0]}x{self.source[1]}"
        return (
            at if self.size == (self.width, self.height) else f"{at}, scaled to {self.size[0]}x{self.size[1]}"
        )


def crop_region(
    frames: Tensor,
    mask: Tensor,
    *,
    margin: float = 0.5,
    width: int | None = None,
    height: int | None = None,
) -> tuple[Tensor, Tensor, Crop]:
    """Cut out a mask's surroundings, so that a small region is made with all the pixels of a large video.

    The window is one for all frames: the box of all that is ever masked, without stray pixels
    (`drop_specks`), with a margin, moved into the frame. Stray pixels outside of it are not generated.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; 1 = generate.
        margin: kept around the box, as a part of its longer side; the model sees what the region belongs to.
        width, height: size to work at; the window gets its shape where the frame has room for it, else it is
            worked on at about as many pixels in the window's own shape. None = the window's own size. Both or
            neither; made multiples of 16, at which the picture is not stretched.
    Returns:
        The window's frames [F, h, w, 3], its mask [F, h, w] of 0 and 1, and where it was.
    Raises:
        ValueError: the mask is empty or does not fit the clip, or only one side is given.
    """
    clip, notes = as_clip(frames, "frames")
    total, rows, columns = clip.shape[:3]
    soft, more = as_mask(mask, total, rows, columns)
    requested = _asked(width, height)
    crop = _window(soft, real("margin", margin, 0.0, MAX_CROP_MARGIN), requested)
    if requested and crop.size != (width, height):
        shape = "" if crop.size == requested else ", in the region's shape"
        size = f"{crop.size[0]}x{crop.size[1]}"
        notes.append(f"size {width}x{height} -> {size} (multiples of {SIZE_MULTIPLE}{shape})")
    y, x = crop.window
    part = resample(clip[:, y, x], *crop.size)
    cut = scaled_mask(soft[:, y, x], *crop.size)
    notes += [*more, *crop.notes, *find_lost(soft[:, y, x], cut, "mask")]
    crop = replace(crop, mask=soft[:, y, x], notes=tuple(notes))
    return (part if part.is_contiguous() else converted(part, Tensor.float)), cut, crop


def scaled_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """A mask [F, H, W] scaled and binarized."""
    return binarize(resample(mask[..., None], width, height)[..., 0])


def _asked(width: int | None, height: int | None) -> Size | None:
    if (width is None) != (height is None):
        side, other = ("width", "height") if height is None else ("height", "width")
        raise ValueError(
            f"{side} is set and {other} is not; set both, or neither (0) to keep the region's own size"
        )
    if width is None:
        return None
    return tuple(_multiple(whole(name, side, 1)) for name, side in (("width", width), ("height", height)))


def _window(mask: Tensor, margin: float, requested: Size | None) -> Crop:
    marked = (mask.amax(0) > 0.5).cpu().numpy()
    body, num_specks = drop_specks(marked)
    box, notes = mask_box(body), ()
    if box is None:
        raise ValueError("mask is empty: nothing is over 0.5 in any frame; paint the region white")
    if box != mask_box(marked):
        notes = (f"the window is around the region, without {counted(num_specks, 'speck')} of the mask",)
    rows, columns = mask.shape[1:]
    left, top, right, bottom = box
    border = round(margin * max(right - left, bottom - top))
    width, height = right - left + 2 * border, bottom - top + 2 * border
    if requested is None:
        width, height = (SIZE_MULTIPLE * math.ceil(side / SIZE_MULTIPLE) for side in (width, height))
    else:
        shape = requested[0] / requested[1]
        width, height = max(width, round(height * shape)), max(height, round(width / shape))
    inside = min(width, columns), min(height, rows)
    (width, height), size = _fitted(inside, (right - left, bottom - top), (columns, rows), requested)
    x = min(max(0, (left + right - width) // 2), columns - width)
    y = min(max(0, (top + bottom - height) // 2), rows - height)
    return Crop(x, y, width, height, (columns, rows), size, notes=notes)


def _fitted(window: Size, box: Size, frame: Size, requested: Size | None) -> tuple[Size, Size]:
    """A window around the box, and the size at which it is worked on without stretching."""
    if requested is None:
        trimmed = tuple(_multiple(side) for side in window)
        if all(low <= side <= high for low, side, high in zip(box, trimmed, window, strict=True)):
            return trimmed, trimmed
    elif abs(window[0] * requested[1] - window[1] * requested[0]) <= max(*requested, *window):
        return window, requested
    area = window[0] * window[1] if requested is None else requested[0] * requested[1]
    scale = math.sqrt(area / (window[0] * window[1]))
    candidates = []
    highest = _multiple(round(2 * window[1] * scale))
    for height in range(SIZE_MULTIPLE, highest + 1, SIZE_MULTIPLE):
        below = _multiple(int(height * window[0] / window[1]))
        candidates += [(below, height), (below + SIZE_MULTIPLE, height)]
    low, high = (share * area for share in AREA_RANGE)
    sizes = [size for size in candidates if low <= size[0] * size[1] <= high] or candidates[:1]
    fits = [(_shaped(window, box, frame, size), size) for size in sizes]
    return min(fits, key=lambda fit: _badness(*fit, area))


def _shaped(window: Size, box: Size, frame: Size, size: Size) -> Size:
    """The window with the shape of `size`, as far as the frame lets it grow and the box lets it shrink."""
    width, height = window
    shape = size[0] / size[1]
    if width > height * shape:
        height = min(frame[1], round(width / shape))
        return max(box[0], min(width, round(height * shape))), height
    width = min(frame[0], round(height * shape))
    return width, max(box[1], min(height, round(width / shape)))


def _badness(window: Size, size: Size, area: int) -> tuple[int, float]:
    """Visible stretching first, then the distance from the number of pixels asked for."""
    stretch = abs(math.log(window[0] * size[1] / (window[1] * size[0])))
    return int(stretch / INVISIBLE_STRETCH), abs(math.log(size[0] * size[1] / area))


def _multiple(side: int) -> int:
    return max(SIZE_MULTIPLE, side // SIZE_MULTIPLE * SIZE_MULTIPLE)
