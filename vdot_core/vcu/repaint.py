"""The builder that keeps a clip and regenerates its masked region: inpaint.

The node VDOTMask calls it; its units, and outpaint's, are of the kind 'repaint', VACE's word for both.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..memory import MASK, RGB
from .canvas import as_clip, target_length, target_size
from .checks import check_volume, flag
from .masks import as_mask, augment, check_augment, find_empty_frames, find_lost, fit_mask
from .scaling import fit_into, lengthen
from .unit import GRAY, VCU, built


def inpaint(
    frames: Tensor,
    mask: Tensor,
    *,
    mask_shape: str = "original",
    expand: float = 0.0,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    strength: float | Sequence[float] = 1.0,
    grow_px: int = 0,
    blur_px: float = 0.0,
    still: bool = False,
) -> VCU:
    """Keep a clip and regenerate the masked region.

    Args:
        frames: [F, H, W, 3] float in [0, 1]. The builder grays the masked region; what is in it does not
            matter.
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; 1 = generate. Scaled as the clip, then
            binarized.
        mask_shape: 'original', 'hull' or 'box'; the latter two hide the outline of what was there.
        expand: grow the mask by this part of its box (VACE: 0.3), at most half of the way to the border.
        width, height: canvas; None = the clip's own size. Snapped to multiples of 16, the clip covers it.
        num_frames: length; None = the clip's own. Frames beyond a shorter clip are generated.
        strength: scale of its context; see `VCU`.
        grow_px, blur_px, still: further ways to coarsen the mask, in the clip's own pixels; see `augment`.
    Raises:
        ValueError: the mask has another length or shape of picture than the clip; a shape, dtype or range is
            wrong.
    """
    expand, grow_px, blur_px = check_augment(mask_shape, expand, grow_px, blur_px)
    clip, notes = as_clip(frames, "frames")
    source = clip.shape[2], clip.shape[1]
    mask, more = as_mask(mask, clip.shape[0], source[1], source[0])
    notes += more
    width, height, more = target_size(source, width, height)
    length = target_length(clip.shape[0], num_frames, "video")
    check_volume(length.total, width, height, RGB + MASK)
    notes += [*more, *length.notes]
    clip, more = fit_into(clip[: length.used], width, height, length.total, "video")
    mask = mask[: length.used]
    if mask_shape != "original" or expand or grow_px or blur_px or flag("still", still):
        mask = augment(mask, mask_shape, expand, grow_px=grow_px, blur_px=blur_px, still=still)
    source_mask, mask = mask, fit_mask(mask, width, height)
    notes += more + find_empty_frames(source_mask) + find_lost(source_mask, mask, "mask")
    if mask.amax() == 0 and length.used == length.total:
        notes.append("mask is empty (nothing over 0.5): the full clip is kept, nothing is generated")
    if bool(mask.all()):
        notes.append(
            "mask is white everywhere: nothing of the clip is kept; if it marks what to keep, invert it"
        )
    for frame, hidden in zip(clip, mask, strict=False):
        frame.masked_fill_(hidden[..., None] > 0, GRAY)
    return built(
        clip,
        lengthen(mask, length.total, 1.0),
        kind="repaint",
        strength=strength,
        notes=notes,
    )
