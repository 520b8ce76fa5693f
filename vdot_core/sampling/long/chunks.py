"""A chunk's unit: the video's own frames and masks, with what is known of the overlap kept.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...vcu import VAE_STRIDE, VCU
from ...vcu.unit import dense
from .plan import Span


def sliced(unit: VCU, span: Span) -> VCU:
    """The frames, masks, regions and strengths of a unit in a span; references as they are.

    The tensors are views.
    """
    frames = slice(span.start, span.stop)
    strength, first = unit.strength, span.start // VAE_STRIDE[0]
    if isinstance(strength, tuple):
        strength = strength[first : first + (span.num_frames - 1) // VAE_STRIDE[0] + 1]
    return unit.replace(
        frames=unit.frames[frames],
        masks=unit.masks[frames],
        region=None if unit.region is None else unit.region[frames],
        strength=strength,
        parts=tuple(sliced(part, span) for part in unit.parts if part.num_frames == unit.num_frames),
    )


def closed(unit: VCU, first: Tensor) -> VCU:
    """The last unit of a loop with the video's first frames [F, H, W, 3] behind it, kept; F is 4n."""
    count = len(first)
    kept_mask = unit.masks.new_zeros(1, 1, 1).expand(count, *unit.masks.shape[1:])
    strength = unit.strength
    if isinstance(strength, tuple):
        strength = strength + strength[-1:] * (count // VAE_STRIDE[0])
    return unit.replace(
        frames=torch.cat([unit.frames, first.to(unit.frames)]),
        masks=torch.cat([unit.masks, kept_mask]),
        kind="repaint" if unit.kind == "repaint" else "extension",
        region=None,
        parts=(),
        strength=strength,
    )


def continued(unit: VCU, known: Tensor | None) -> VCU:
    """A chunk's unit whose first frames are known: VACE's composition of an extension and the unit.

    Pixels that the unit keeps stay the unit's; the others are the finished chunk's. All are kept.

    Args:
        unit: of the chunk.
        known: [F, H, W, 3] float in [0, 1], the end of the finished chunk, which this one repeats; None: the
            unit as it is.
    """
    if known is None:
        return unit
    known = known.to(unit.frames)
    count = len(known)
    keeps = unit.masks[:count, ..., None] <= 0.5
    frames = torch.cat([torch.where(keeps, unit.frames[:count], known), unit.frames[count:]])
    masks = torch.cat([torch.zeros_like(unit.masks[:count]), unit.masks[count:]])
    kind = "repaint" if unit.kind == "repaint" else "extension"
    return unit.replace(frames=frames, masks=masks, kind=kind, region=None, parts=())


def generated_latents(masks: Tensor) -> Tensor:
    """Latents [T, h, w] bool all of whose pixels are generated, of masks [F, H, W]."""
    preserved, stride = dense(masks.float() <= 0.5).float(), VAE_STRIDE[0]
    num_frames, height, width = masks.shape
    size = ((num_frames - 1) // stride + 1, height // VAE_STRIDE[1], width // VAE_STRIDE[2])
    if preserved.numel() == 1:
        return ~preserved.bool().expand(size)
    preserved = preserved.expand(num_frames, height, width)
    groups = torch.cat([preserved[:1].expand(stride - 1, -1, -1), preserved])
    return F.max_pool3d(groups[None], VAE_STRIDE)[0] == 0
