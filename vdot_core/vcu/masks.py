"""Masks: bringing them to the clip's size, binarising, and hiding the exact outline of what is removed.

Shape letters: F pixel frames, H W pixels. A mask is 1 where the model generates, 0 where it keeps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .canvas import cover, resample, to_unit_range

MASK_SHAPES = ("original", "hull", "box")
EXPAND_RATIO = 0.3


def binarise(mask: Tensor) -> Tensor:
    """1 where the mask is over one half, else 0; any shape."""
    return (mask > 0.5).float()


def as_mask(
    mask: Tensor, num_frames: int, height: int, width: int, name: str = "mask"
) -> tuple[Tensor, list[str]]:
    """Bring a mask to a clip's length and size, still soft.

    Args:
        mask: [F, H, W], or [1, H, W] or [H, W] for every frame; float in [0, 1], bool or uint8.
        num_frames, height, width: the clip it belongs to.
    Returns:
        [F, H, W] float32 in [0, 1], and notes.
    Raises:
        ValueError: the length differs, or the shape of the picture does.
    """
    mask = torch.as_tensor(mask)
    if mask.ndim == 4 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.numel() == 0:
        raise ValueError(f"{name} has shape {list(mask.shape)}, expected [F, H, W], [1, H, W] or [H, W]")
    if mask.shape[0] not in (1, num_frames):
        raise ValueError(
            f"{name} has {mask.shape[0]} frames, video has {num_frames}; "
            "give both the same length, or one mask for all"
        )
    mask, notes = to_unit_range(mask, name)
    mask_height, mask_width = mask.shape[1:]
    if (mask_height, mask_width) != (height, width):
        # One pixel of slack: the aspect of a scaled size is only kept up to rounding.
        if abs(mask_width * height - width * mask_height) > max(width, height, mask_width, mask_height):
            raise ValueError(
                f"{name} is {mask_width}x{mask_height}, video is {width}x{height}; give both the same size"
            )
        mask = resample(mask[..., None], width, height)[..., 0]
        notes = [*notes, f"{name}: {mask_width}x{mask_height} scaled to the video's {width}x{height}"]
    return mask.expand(num_frames, height, width), notes


def fit_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """Scale and crop a mask [F, H, W] exactly as its clip, then binarise: the order VACE was trained with."""
    if mask.shape[1:] != (height, width):
        still = mask.stride(0) == 0 and mask.shape[0] > 1
        source = mask[:1] if still else mask
        mask = cover(source[..., None], width, height)[..., 0].expand(mask.shape[0], height, width)
    return binarise(mask)


def augment(mask: Tensor, shape: str = "original", expand: float = 0.0) -> Tensor:
    """Coarsen a mask so that its outline does not give away the old shape (for removing and swapping).

    Args:
        mask: [F, H, W] float in [0, 1].
        shape: 'original', 'hull' (convex hull of all that is masked in a frame) or 'box' (its bounding box).
        expand: grow every side by this part of the box's side, at most half of the way to the frame's border
            (VACE's limit); 0 = not at all, VACE's usual value is EXPAND_RATIO.
    Returns:
        [F, H, W] of 0 and 1; a frame without mask stays without.
    Raises:
        ValueError: the shape is unknown or `expand` is negative.
    """
    if shape not in MASK_SHAPES:
        raise ValueError(f"mask shape is {shape!r}, expected one of {', '.join(MASK_SHAPES)}")
    if not 0 <= expand <= 10:
        raise ValueError(f"expand is {expand}, expected a ratio between 0 and 10, usually {EXPAND_RATIO}")
    binary = binarise(mask)
    if shape == "original" and expand == 0:
        return binary
    frames = [_augment_frame(frame, shape, expand) for frame in binary.bool().cpu().numpy()]
    return torch.from_numpy(np.stack(frames)).to(device=mask.device, dtype=torch.float32)


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Bounding box (left, top, right, bottom) of a bool [H, W], ends exclusive; None when empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _augment_frame(mask: np.ndarray, shape: str, expand: float) -> np.ndarray:
    box = mask_box(mask)
    if box is None:
        return mask
    left, top, right, bottom = box
    if shape == "box":
        mask = np.zeros_like(mask)
        mask[top:bottom, left:right] = True
    elif shape == "hull":
        mask = _fill_hull(mask)
    if expand:
        height, width = mask.shape
        reach_x, reach_y = expand * (right - left), expand * (bottom - top)
        mask = _grow(mask, int(min(reach_y, top / 2)), int(min(reach_y, (height - bottom) / 2)))
        mask = _grow(mask.T, int(min(reach_x, left / 2)), int(min(reach_x, (width - right) / 2))).T
    return np.ascontiguousarray(mask)


def _grow(mask: np.ndarray, before: int, after: int) -> np.ndarray:
    """Spread a bool [H, W] by `before` pixels up and `after` pixels down, by running sums."""
    padded = np.pad(mask, ((after + 1, before), (0, 0))).astype(np.int32).cumsum(0)
    size, window = mask.shape[0], before + after + 1
    return padded[window : window + size] > padded[:size]


def _fill_hull(mask: np.ndarray) -> np.ndarray:
    """Fill the convex hull of a bool [H, W]: row by row between the envelopes of its left and right ends."""
    rows = np.flatnonzero(mask.any(1))
    lefts = mask[rows].argmax(1)
    rights = mask.shape[1] - 1 - mask[rows][:, ::-1].argmax(1)
    every_row = np.arange(rows[0], rows[-1] + 1)
    left = _lower_envelope(rows, lefts, every_row)
    right = -_lower_envelope(rows, -rights, every_row)
    columns = np.arange(mask.shape[1])
    filled = np.zeros_like(mask)
    # The slack keeps pixels that lie on the hull's edge inside despite rounding.
    filled[every_row] = (columns >= left[:, None] - 1e-6) & (columns <= right[:, None] + 1e-6)
    return filled


def _lower_envelope(xs: np.ndarray, ys: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Largest convex function under the points (Andrew's monotone chain), evaluated at `at`."""
    chain: list[tuple[int, int]] = []
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            chain.pop()
        chain.append((x, y))
    corners = np.array(chain, dtype=np.float64)
    return np.interp(at, corners[:, 0], corners[:, 1])
