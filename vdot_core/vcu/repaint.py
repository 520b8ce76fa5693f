"""Builders that keep a part of a clip and generate the rest of its picture: inpaint and outpaint.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .canvas import as_clip, cover, fit_frames, lengthen, resample, target_length, target_size
from .masks import as_mask, augment, fit_mask
from .unit import GREY, SIZE_MULTIPLE, VCU, built


def inpaint(
    frames: Tensor,
    mask: Tensor,
    *,
    mask_shape: str = "original",
    expand: float = 0.0,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    strength: float = 1.0,
) -> VCU:
    """Keep a clip and generate the masked region anew.

    Args:
        frames: [F, H, W, 3] float in [0, 1]. The builder greys the masked region; what is in it does not
            matter.
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; 1 = generate. Scaled as the clip, then
            binarised.
        mask_shape: 'original', 'hull' or 'box'; the latter two hide the outline of what was there.
        expand: grow the mask by this part of its box (VACE: 0.3), at most half of the way to the border.
        width, height: canvas; None = the clip's own size. Snapped to multiples of 16, the clip covers it.
        num_frames: length; None = the clip's own. Frames beyond a shorter clip are generated whole.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: the mask has another length or shape of picture than the clip; a shape, dtype or range is
            wrong.
    """
    clip, notes = as_clip(frames, "video")
    source = clip.shape[2], clip.shape[1]
    mask, more = as_mask(mask, clip.shape[0], source[1], source[0])
    notes += more
    width, height, more = target_size(source, width, height)
    length = target_length(clip.shape[0], num_frames, "video")
    notes += [*more, *length.notes]
    clip, more = fit_frames(clip[: length.used], width, height, "video")
    mask = mask[: length.used]
    if mask_shape != "original" or expand:
        mask = augment(mask, mask_shape, expand)
    mask = fit_mask(mask, width, height)
    notes += more
    if not bool(mask.any()) and length.used == length.total:
        notes.append("mask is empty (nothing over 0.5): the whole clip is kept, nothing is generated")
    clip = torch.where(mask[..., None] > 0, GREY, clip)
    return built(
        lengthen(clip, length.total, GREY),
        lengthen(mask, length.total, 1.0),
        kind="repaint",
        strength=strength,
        notes=notes,
    )


@dataclass(frozen=True)
class Pads:
    """Pixels added on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self):
        for name in ("left", "right", "top", "bottom"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)} pixels, expected 0 or more")
        if not self.left + self.right + self.top + self.bottom:
            raise ValueError(
                "nothing to outpaint: left, right, top and bottom are all 0; give one of them pixels"
            )


def outpaint(
    frames: Tensor,
    *,
    left: int = 0,
    right: int = 0,
    top: int = 0,
    bottom: int = 0,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    strength: float = 1.0,
) -> VCU:
    """Keep a clip and generate a margin around it.

    Args:
        frames: [F, H, W, 3] float in [0, 1], or one image for a single frame.
        left, right, top, bottom: margins in the clip's own pixels. Without `width` and `height` the clip
            keeps its scale, and the margins grow to make the canvas a multiple of 16.
        width, height: canvas; clip and margins are scaled together to cover it.
        num_frames: length; None = the clip's own. Frames beyond a shorter clip are generated whole.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: no margin, a negative one, or a wrong shape, dtype or range.
    """
    clip, notes = as_clip(frames, "video")
    pads = Pads(left, right, top, bottom)
    length = target_length(clip.shape[0], num_frames, "video")
    notes += length.notes
    clip = clip[: length.used]
    if width is None and height is None:
        clip, more = _fit_unpadded_sides(clip, pads)
        pads, grown = _grow_pads(clip.shape[2], clip.shape[1], pads)
        clip, mask = _pad(clip, pads)
        notes += more + grown
    else:
        clip, mask, more = _pad_and_cover(clip, pads, width, height)
        notes += more
    return built(
        lengthen(clip, length.total, GREY),
        lengthen(mask, length.total, 1.0),
        kind="repaint",
        strength=strength,
        notes=notes,
    )


def _fit_unpadded_sides(clip: Tensor, pads: Pads) -> tuple[Tensor, list[str]]:
    """A side without margin cannot grow to a multiple of 16, so the clip is fitted along it."""
    height, width = clip.shape[1:3]
    new_width = (
        width if pads.left + pads.right else max(SIZE_MULTIPLE, width // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    new_height = (
        height if pads.top + pads.bottom else max(SIZE_MULTIPLE, height // SIZE_MULTIPLE * SIZE_MULTIPLE)
    )
    return fit_frames(clip, new_width, new_height, "video")


def _grow_pads(width: int, height: int, pads: Pads) -> tuple[Pads, list[str]]:
    """Make the canvas a multiple of 16; the margins share the extra pixels in proportion (VACE's rule)."""
    left, right = _grow_pair(width, pads.left, pads.right)
    top, bottom = _grow_pair(height, pads.top, pads.bottom)
    grown = Pads(left, right, top, bottom)
    if grown == pads:
        return pads, []
    return grown, [
        f"margins left {pads.left}, right {pads.right}, top {pads.top}, bottom {pads.bottom} -> "
        f"{left}, {right}, {top}, {bottom} "
        f"(canvas {width + left + right}x{height + top + bottom}, multiples of {SIZE_MULTIPLE})"
    ]


def _grow_pair(side: int, before: int, after: int) -> tuple[int, int]:
    if not before + after:
        return 0, 0
    total = -(-(side + before + after) // SIZE_MULTIPLE) * SIZE_MULTIPLE - side
    new_before = before * total // (before + after)
    return new_before, total - new_before


def _pad(clip: Tensor, pads: Pads) -> tuple[Tensor, Tensor]:
    num_frames, height, width, _ = clip.shape
    shape = (num_frames, height + pads.top + pads.bottom, width + pads.left + pads.right)
    frames, mask = clip.new_full((*shape, 3), GREY), clip.new_ones(shape)
    inside = (slice(None), slice(pads.top, pads.top + height), slice(pads.left, pads.left + width))
    frames[inside] = clip
    mask[inside] = 0.0
    return frames, mask


def _pad_and_cover(
    clip: Tensor, pads: Pads, width: int | None, height: int | None
) -> tuple[Tensor, Tensor, list[str]]:
    """Scale the clip first and pad it at its final scale, so that no grey bleeds into what is kept."""
    old_height, old_width = clip.shape[1:3]
    padded = old_width + pads.left + pads.right, old_height + pads.top + pads.bottom
    width, height, notes = target_size(padded, width, height)
    scale = max(width / padded[0], height / padded[1])
    x0, x1 = round(pads.left * scale), round((pads.left + old_width) * scale)
    y0, y1 = round(pads.top * scale), round((pads.top + old_height) * scale)
    full_width, full_height = max(width, round(padded[0] * scale)), max(height, round(padded[1] * scale))
    clip = resample(clip, max(1, x1 - x0), max(1, y1 - y0))
    scaled = _ScaledPads(x0, full_width - x0 - clip.shape[2], y0, full_height - y0 - clip.shape[1])
    frames, mask = _pad(clip, scaled)
    note = f"video: {padded[0]}x{padded[1]} with its margins scaled to {full_width}x{full_height}"
    if (full_width, full_height) != (width, height):
        note += f" and cropped to {width}x{height}"
    # Already at the covering size: this only crops the centre.
    frames, mask = cover(frames, width, height), cover(mask[..., None], width, height)[..., 0]
    return frames, mask, notes if padded == (width, height) else [*notes, note]


@dataclass(frozen=True)
class _ScaledPads(Pads):
    """Margins after scaling, which may have vanished by rounding."""

    def __post_init__(self):
        assert min(self.left, self.right, self.top, self.bottom) >= 0
