"""Masks: fitting to the clip's size, binarizing, and hiding the exact outline of a removed object.

Shape letters: F pixel frames, H W pixels. A mask is 1 where the model generates, 0 where it keeps.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..choices import MASK_SHAPES
from ..progress import steps
from ..scratch import empty
from ..text import counted
from .canvas import to_unit_range
from .checks import as_tensor, described, flag, real, whole
from .grow import drop_specks, fill_hull, grow, mask_box, smooth, spread
from .lengths import fit_length
from .scaling import cover, resample

CLIP = "the clip in frames"
EXPAND_RATIO = 0.3
MAX_GROW = 1024
MAX_BLUR = 128.0
# How much of a scaled mask its clip may lack: VDOT Load Clip crops to multiples of 16 pixels.
MAX_CROPPED_PX, MAX_CROPPED_PART = 24, 1 / 8


def binarize(mask: Tensor) -> Tensor:
    """1 where the mask is over one half, else 0; any shape."""
    return torch.gt(mask, 0.5, out=empty(mask.shape, mask.device))


def as_mask(
    mask: Tensor, num_frames: int, height: int, width: int, name: str = "mask", *, owner: str = CLIP
) -> tuple[Tensor, list[str]]:
    """Bring a mask to the length and size of the clip or picture it belongs to, still soft.

    Args:
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; float in [0, 1], bool or uint8.
        num_frames, height, width: the clip it belongs to; 1 frame for a picture.
        name, owner: what the mask and what it belongs to are called in messages.
    Returns:
        [F, H, W] float32 in [0, 1], and notes.
    Raises:
        ValueError: the length differs by more than a few frames, or the shape of the picture differs, more
            than a clip's by what loading it in multiples of 16 pixels crops.
    """
    mask = as_tensor(mask, name, "[F, H, W] float in [0, 1]")
    if mask.ndim == 4 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.numel() == 0:
        raise ValueError(
            f"{name} has shape {list(mask.shape)}, expected [F, H, W], [1, H, W] or [H, W]; give one"
        )
    mask, fitted = fit_length(mask, num_frames, name, owner)
    if mask.shape[0] not in (1, num_frames):
        raise ValueError(
            f"{name} has {counted(mask.shape[0], 'frame')}, {owner} has {num_frames}; give "
            + ("one mask" if num_frames == 1 else "both the same length, or one mask for all")
        )
    mask, notes = to_unit_range(mask, name)
    notes = fitted + notes
    mask_height, mask_width = mask.shape[1:]
    if (mask_height, mask_width) != (height, width):
        # One pixel of slack: the aspect of a scaled size is only kept up to rounding.
        same_shape = abs(mask_width * height - width * mask_height) <= max(
            width, height, mask_width, mask_height
        )
        if not same_shape and (num_frames == 1 or not _of_the_uncropped(mask, width, height)):
            raise ValueError(
                f"{name} is {mask_width}x{mask_height}, {owner} is {width}x{height}; give both the same size"
                + ("" if mask.any() else " (it is empty: a picture without transparency has no mask to give)")
            )
        scale, how = (resample, "scaled") if same_shape else (cover, "scaled and cropped")
        mask = scale(mask[..., None], width, height)[..., 0]
        notes = [*notes, f"{name}: {mask_width}x{mask_height} {how} to the {width}x{height} of {owner}"]
    return mask.expand(num_frames, height, width), notes


def _of_the_uncropped(mask: Tensor, width: int, height: int) -> bool:
    """True if a mask [F, H, W] may belong to a clip before it was scaled and cropped a little to its size."""
    scale = max(width / mask.shape[2], height / mask.shape[1])
    sides = ((scale * mask.shape[2], width), (scale * mask.shape[1], height))
    return all(covering - side <= min(MAX_CROPPED_PX, MAX_CROPPED_PART * side) for covering, side in sides)


def fit_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """Scale and crop a mask [F, H, W] exactly as its clip, then binarize: the order VACE was trained with."""
    if mask.shape[1:] != (height, width):
        still = mask.stride(0) == 0 and mask.shape[0] > 1
        source = mask[:1] if still else mask
        mask = cover(source[..., None], width, height)[..., 0].expand(mask.shape[0], height, width)
    return binarize(mask)


def find_lost(before: Tensor, after: Tensor, name: str) -> list[str]:
    """A note where scaling or cropping leaves nothing of a mask, both [F, H, W]."""
    masked, still_masked = (_masked_frames(mask) for mask in (before, after))
    lost = int((masked & ~still_masked).sum())
    if not lost:
        return []
    return [
        f"{name}: in {counted(lost, 'frame')} nothing of it is left at {after.shape[2]}x{after.shape[1]}, "
        "as it is too thin or cropped away; grow it, or give a larger width and height"
    ]


def find_empty_frames(mask: Tensor) -> list[str]:
    """A note where some frames of a mask [F, H, W] are empty, as where a tracker lost a thing."""
    empty = int((~_masked_frames(mask)).sum())
    if not 0 < empty < len(mask):
        return []
    return [f"mask is empty in {empty} of {counted(len(mask), 'frame')}: these are kept as they are"]


def _masked_frames(mask: Tensor) -> Tensor:
    """[F]: whether a frame of the mask [F, H, W] is over one half anywhere."""
    still = mask.stride(0) == 0
    return (mask[:1] if still else mask).amax((1, 2)).expand(len(mask)) > 0.5


def augment(
    mask: Tensor,
    shape: str = "original",
    expand: float = 0.0,
    *,
    grow_px: int = 0,
    blur_px: float = 0.0,
    still: bool = False,
) -> Tensor:
    """Coarsen a mask so that its outline does not show the old shape (for removing and swapping).

    The steps in order: one mask for all (`still`), shape, `expand`, `grow_px`, `blur_px`. A mask [F, H, W]
    that `Tensor.expand` made of one frame is worked on once.

    Args:
        mask: [F, H, W] float in [0, 1], cut at one half.
        shape: 'original', 'hull' (convex hull of all that is masked in a frame) or 'box' (its bounding box).
            Stray pixels (`drop_specks`) stay, and do not widen hull or box.
        expand: grow every side by this part of the box's side, at most half of the way to the frame's border
            (VACE's limit); 0 = not at all, VACE's usual value is EXPAND_RATIO.
        grow_px: grow by a disc of this radius, to the border if need be; negative shrinks.
        blur_px: sigma of a Gaussian that rounds the outline. The mask stays binary, as in training.
        still: mask in every frame what is masked in any, so that its motion reveals nothing.
    Returns:
        [F, H, W] of 0 and 1; a frame without mask stays without.
    Raises:
        ValueError: the shape is unknown, or a number is out of its range.
    """
    expand, grow_px, blur_px = check_augment(shape, expand, grow_px, blur_px)
    repeated = mask.shape[0] > 1 and mask.stride(0) == 0
    binary = binarize(mask[:1] if repeated else mask)
    if flag("still", still):
        binary, repeated = binary.amax(0, keepdim=True), True
    if shape != "original" or expand or grow_px or blur_px:
        for frame in steps(binary):
            pixels = _augment_frame(frame.bool().cpu().numpy(), shape, expand, grow_px, blur_px)
            frame.copy_(torch.from_numpy(pixels))
    return binary.expand_as(mask) if repeated else binary


def check_augment(shape: str, expand: float, grow_px: int, blur_px: float) -> tuple[float, int, float]:
    """`expand`, `grow_px` and `blur_px` as plain numbers; ValueError for what `augment` cannot do."""
    if not isinstance(shape, str) or shape not in MASK_SHAPES:
        raise ValueError(f"mask shape is {described(shape)}, expected one of {', '.join(MASK_SHAPES)}")
    expand = real("expand", expand, -math.inf, math.inf)
    if not 0 <= expand <= 10:
        raise ValueError(f"expand is {expand}, expected a ratio between 0 and 10, usually {EXPAND_RATIO}")
    return expand, whole("grow_px", grow_px, -MAX_GROW, MAX_GROW), real("blur_px", blur_px, 0.0, MAX_BLUR)


def _augment_frame(mask: np.ndarray, shape: str, expand: float, grow_px: int, blur_px: float) -> np.ndarray:
    body = mask if shape == "original" else drop_specks(mask)[0]
    box = mask_box(body)
    if box is None:
        return mask
    left, top, right, bottom = box
    if shape == "box":
        mask = mask.copy()
        mask[top:bottom, left:right] = True
    elif shape == "hull":
        mask = mask | fill_hull(body)
    if expand:
        height, width = mask.shape
        reach_x, reach_y = expand * (right - left), expand * (bottom - top)
        mask = spread(mask, int(min(reach_y, top / 2)), int(min(reach_y, (height - bottom) / 2)))
        mask = spread(mask.T, int(min(reach_x, left / 2)), int(min(reach_x, (width - right) / 2))).T
    return np.ascontiguousarray(smooth(grow(mask, grow_px), blur_px))
