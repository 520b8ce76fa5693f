"""Keeps the colors of a long video: each chunk is brought to the overlap, and to the first chunk.

All of it works on latents, whose channels' means and contrasts hold the picture's colors, so that what is
decoded and what the next chunk continues from agree.

Shape letters: C channels, T latent frames, h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_GAIN = 1.25
MIN_POSITIONS = 16
"""Fewer latents than these say nothing about a channel."""


@dataclass(frozen=True, eq=False)
class Colors:
    """Mean and standard deviation of each channel, [C, 1, 1, 1]."""

    mean: Tensor
    std: Tensor


def colors_of(latents: Tensor, mask: Tensor) -> Colors | None:
    """Colors of latents [1, C, T, h, w] inside a mask [T, h, w]; None where that is too small."""
    values = latents[0][:, mask.to(latents.device)].double()
    if values.shape[1] < MIN_POSITIONS:
        return None
    mean, std = values.mean(1), values.std(1).clamp(min=1e-3)
    return Colors(*(value.view(-1, 1, 1, 1) for value in (mean, std)))


def brought(latents: Tensor, own: Colors, target: Colors, weight: Tensor) -> Tensor:
    """Latents moved toward the target's colors by a weight [T, h, w] in 0 .. 1."""
    gain = (target.std / own.std).clamp(1 / MAX_GAIN, MAX_GAIN)
    moved = (latents.double() - own.mean) * gain + target.mean
    return torch.lerp(latents.double(), moved, weight.to(latents.device).double()).to(latents.dtype)


def matched(latents: Tensor, overlap: Tensor, free: Tensor) -> Tensor:
    """A chunk's latents with the colors of the overlap that it was given.

    Args:
        latents: [1, C, T, h, w] of the chunk.
        overlap: [1, C, T', h, w], what its first T' frames should be.
        free: [T, h, w] bool, the latents that may change.
    """
    shown = free.new_ones(overlap.shape[2:])
    own, target = colors_of(latents[:, :, : overlap.shape[2]], shown), colors_of(overlap.to(latents), shown)
    if own is None or target is None:
        return latents
    return brought(latents, own, target, free.float())


def anchored(latents: Tensor, first: Colors, free: Tensor, num_known: int, strength: float) -> Tensor:
    """A chunk's new latents on their way to the first chunk's colors, so gently that no seam shows.

    Args:
        latents: [1, C, T, h, w] of the chunk.
        first: the first chunk's colors.
        free: [T, h, w] bool, the latents that may change.
        num_known: leading latent frames that the overlap decides.
        strength: 0 .. 1, how much of the way at the chunk's end.
    """
    new = free.clone()
    new[:num_known] = False
    own = colors_of(latents, new)
    if own is None:
        return latents
    count = free.shape[0] - num_known
    ramp = torch.cat([torch.zeros(num_known), torch.linspace(0, strength, count + 1)[1:]])
    return brought(latents, own, first, free.float() * ramp.view(-1, 1, 1).to(free.device))


def fade(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """The second of two equal stretches fades in over the first, evenly along a dimension."""
    count = before.shape[dim]
    weight = torch.arange(1, count + 1, device=after.device, dtype=torch.float32) / (count + 1)
    shape = [1] * after.ndim
    shape[dim] = count
    return torch.lerp(before.to(after), after, weight.view(shape).to(after.dtype))
