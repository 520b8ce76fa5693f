"""A chunk's unit: the video's own frames and masks, with what is known of the overlap kept.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...vcu import LATENT_CHANNELS, VAE_STRIDE, VCU, VCUContext
from ...vcu.unit import dense
from .plan import Span


@dataclass(frozen=True, eq=False)
class Tail:
    """The end of a finished chunk, which the next one repeats.

    Args:
        frames: [F, H, W, 3] float in [0, 1], decoded.
        latents: [1, 16, T, h, w] of their groups of four, the network's space; F = 4T + 1: the first frame
            alone has none, since the last of a group is not a group.
    """

    frames: Tensor
    latents: Tensor


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


def continued(unit: VCU, tail: Tail | None) -> VCU:
    """A chunk's unit whose first frames are known: VACE's composition of an extension and the unit.

    Pixels that the unit keeps stay the unit's; the others are the finished chunk's. All are kept.
    """
    if tail is None:
        return unit
    overlap = tail.frames.to(unit.frames)
    count = len(overlap)
    preserved = unit.masks[:count, ..., None] <= 0.5
    frames = torch.cat([torch.where(preserved, unit.frames[:count], overlap), unit.frames[count:]])
    masks = torch.cat([torch.zeros_like(unit.masks[:count]), unit.masks[count:]])
    kind = "repaint" if unit.kind == "repaint" else "extension"
    return unit.replace(frames=frames, masks=masks, kind=kind, region=None, parts=())


def carried(context: VCUContext, unit: VCU, tail: Tail | None) -> VCUContext:
    """The context with the finished chunk's own latents where its frames were encoded again.

    The first frame of the overlap is one latent frame of its own here, so that it alone is encoded; the
    groups after it are taken over where the unit generates.

    Args:
        context: of `continued(unit, tail)`.
        unit: of the chunk.
        tail: None: unchanged.
    """
    if tail is None or not tail.latents.shape[2]:
        return context
    count, first = tail.latents.shape[2], context.num_reference_latents + 1
    contexts = context.contexts.clone()
    overlap = contexts[:, :, :LATENT_CHANNELS, first : first + count]
    generated = latent_mask(unit.masks, partly=True)[1 : 1 + count].to(contexts.device)
    overlap.copy_(torch.where(generated, tail.latents.to(contexts)[:, None], overlap))
    return replace(context, contexts=contexts)


def uncontrolled(unit: VCU) -> Tensor:
    """[F, H, W] bool: generated pixels about which no control speaks; stored as one value where equal."""
    free = unit.masks > 0.5
    if unit.kind == "generate":
        return free
    for part in unit.parts or (unit,):
        if part.kind == "control":
            free = free & (part.region <= 0.5 if part.region is not None else torch.zeros_like(free))
    return free


def latent_mask(masks: Tensor, partly: bool) -> Tensor:
    """Masks [F, H, W] by latent: [T, h, w] bool, where all its pixels are in the mask, or some (`partly`)."""
    compact = dense(masks.float() > 0.5).float()
    stride, (height, width) = VAE_STRIDE[0], masks.shape[1:]
    if compact.numel() == 1:
        size = ((len(masks) - 1) // stride + 1, height // VAE_STRIDE[1], width // VAE_STRIDE[2])
        return compact.bool().expand(size)
    sign = 1 if partly else -1
    values = sign * torch.cat([masks[:1].expand(stride - 1, -1, -1), masks]).gt(0.5).float()
    return (sign * F.max_pool3d(values[None], VAE_STRIDE)[0]) > 0.5
