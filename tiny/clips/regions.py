"""Regions to regenerate in training: any shape, still or moving, from a spot to nearly everything.

Letters: F frames, H height, W width.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from .objects import pick, pick_object

KINDS = ("rectangle", "stroke", "ellipse", "phantom", "frame")
KIND_ODDS = np.cumsum([0.4, 0.2, 0.15, 0.2, 0.05])


def rectangle(
    rng: np.random.Generator, size: tuple[int, int, int], smallest: float, largest: float
) -> Tensor:
    """A rectangle that stays or drifts.

    Args:
        rng: Draws it.
        size: (frames, height, width).
        smallest, largest: Bounds of its sides as parts of the frame's.

    Returns:
        [F, H, W] float of 0 and 1.
    """
    num_frames, height, width = size
    sides = rng.uniform(smallest, largest, 2) * (height, width)
    start = rng.uniform(0, 1, 2) * (height - sides[0], width - sides[1])
    step = rng.normal(0, 0.8, 2) * (rng.random() < 0.4)
    mask = torch.zeros(num_frames, height, width)
    for f in range(num_frames):
        top, left = np.clip(start + f * step, 0, (height - sides[0], width - sides[1])).astype(int)
        mask[f, top : top + int(sides[0]), left : left + int(sides[1])] = 1
    return mask


def _ellipse(rng, size: tuple[int, int, int]) -> Tensor:
    num_frames, height, width = size
    ry, rx = rng.uniform(0.15, 0.5, 2) * (height, width)
    cy, cx = rng.uniform(0.2, 0.8, 2) * (height, width)
    step = rng.normal(0, 0.8, 2) * (rng.random() < 0.4)
    moved = torch.arange(num_frames)[:, None, None]
    y = torch.arange(height)[None, :, None] + 0.5 - cy - moved * step[0]
    x = torch.arange(width)[None, None, :] + 0.5 - cx - moved * step[1]
    return ((x / rx) ** 2 + (y / ry) ** 2 < 1).float()


def _stroke(rng, size: tuple[int, int, int]) -> Tensor:
    """A thick broken line, like a hand-painted mask, the same in every frame."""
    num_frames, height, width = size
    points = rng.uniform(0.05, 0.95, (int(rng.integers(3, 7)), 2)) * (width, height)
    radius = rng.uniform(0.05, 0.14) * min(height, width)
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    covered = torch.zeros(height, width, dtype=torch.bool)
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / max(ex * ex + ey * ey, 1e-6)).clamp(0, 1)
        covered |= torch.hypot(x - ax - along * ex, y - ay - along * ey) < radius
    return covered.float().expand(num_frames, height, width)


def _phantom(rng, size: tuple[int, int, int]) -> Tensor:
    """The region of a moving object that is not in the clip, as left by a removal."""
    num_frames, height, width = size
    track = pick_object(
        rng, held_out=True, used_colors=(), nearness=1.0, num_frames=num_frames, size=(height, width)
    )
    return (track.distance(height, width) < 0).float()


def random_region(rng: np.random.Generator, size: tuple[int, int, int]) -> Tensor:
    """A region of any kind, independent of the clip's content.

    Args:
        rng: Draws kind and region.
        size: (frames, height, width).

    Returns:
        [F, H, W] float of 0 and 1, not empty.
    """
    kind = pick(rng, KINDS, KIND_ODDS)
    if kind == "frame":
        return torch.ones(size)
    makers = {"stroke": _stroke, "ellipse": _ellipse, "phantom": _phantom}
    mask = makers[kind](rng, size) if kind in makers else rectangle(rng, size, 0.25, 0.95)
    return mask if mask.any() else rectangle(rng, size, 0.25, 0.95)
