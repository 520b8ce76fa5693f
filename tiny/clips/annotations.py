"""Exact annotations of a drawn clip, computed from its objects: masks, depth, lines, motion and boxes.

Letters: F frames, H height, W width, N objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .backgrounds import drawn_pan
from .objects import times

FAR_TOP, FAR_BOTTOM = 0.0, 0.3  # nearness of the background, from the upper to the lower edge


def distances(objects: Sequence, height: int, width: int) -> Tensor:
    """[N, F, H, W] pixels to each object's outline, negative inside."""
    return torch.stack([track.distance(height, width) for track in objects])


def visible_masks(distance: Tensor) -> Tensor:
    """[N, F, H, W] of 0 and 1: where each object is seen, of distances of objects from far to near."""
    solid = (distance < 0).float()
    hidden = torch.zeros_like(solid[0])
    masks = []
    for own in solid.flip(0):
        masks.append(own * (1 - hidden))
        hidden = torch.maximum(hidden, own)
    return torch.stack(masks[::-1])


def depth_map(nearness: Sequence[float], masks: Tensor) -> Tensor:
    """[F, H, W] float, near = 1, each frame stretched to [0, 1]; the background gets nearer downwards."""
    height = masks.shape[2]
    near = torch.linspace(FAR_TOP, FAR_BOTTOM, height)[:, None].expand(masks.shape[1:]).clone()
    for value, mask in zip(nearness, masks, strict=True):
        near.masked_fill_(mask > 0, value)
    low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
    return (near - low) / (high - low)


def outlines(distance: Tensor) -> Tensor:
    """[F, H, W] float, bright outlines on black; what is behind an object is not seen through it."""
    lines = torch.zeros_like(distance[0])
    for own in distance:
        lines = torch.maximum(lines * (own >= 0), (1.5 - own.abs()).clamp(0, 1))
    return lines


def pan_offsets(background: str, pan: tuple[float, float], num_frames: int) -> Tensor:
    """[F, 2] pixels (x, y) by which the background is drawn to have moved since the first frame."""
    return drawn_pan(background.split()[0], times(num_frames)[:, None] * torch.tensor(pan))


def motion(objects: Sequence, masks: Tensor, offsets: Tensor) -> Tensor:
    """Motion from each frame to the next as it was drawn.

    The background drifts; what an object covers moves and turns with it.

    Args:
        objects: Things with `displacement`, far to near.
        masks: [N, F, H, W] where each is seen.
        offsets: [F, 2] of the background.

    Returns:
        [F-1, 2, H, W] (x, y) in pixels.
    """
    height, width = masks.shape[2:]
    flow = offsets.diff(dim=0)[:, :, None, None].expand(-1, 2, height, width)
    for track, mask in zip(objects, masks, strict=True):
        flow = torch.where(mask[:-1, None] > 0, track.displacement(height, width), flow)
    return flow.contiguous()


def boxes(masks: Tensor) -> Tensor:
    """[N, F, 4] integers (left, top, right, bottom), right and bottom excluded; zeros where unseen."""
    height, width = masks.shape[2:]
    columns, rows = masks.amax(2) > 0, masks.amax(3) > 0
    left, top = columns.int().argmax(-1), rows.int().argmax(-1)
    right = width - columns.flip(-1).int().argmax(-1)
    bottom = height - rows.flip(-1).int().argmax(-1)
    return torch.stack([left, top, right, bottom], dim=-1) * columns.any(-1, keepdim=True)
