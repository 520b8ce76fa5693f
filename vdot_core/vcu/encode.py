"""Encodes units as the network's 96-channel contexts; equal clips are encoded once.

Shape letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents, K contexts, R references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..choices import ALL_STEPS
from ..memory import RGB
from ..networks.context_scale import ContextScale
from ..text import counted
from .checks import as_list, check_volume
from .clips import Clip, halves
from .coder import LATENT_CHANNELS, Coder, MaxBatch, VaeEncode
from .latent_cache import GrayCache
from .lengths import fit_units
from .scaling import letterbox
from .unit import VAE_STRIDE, VCU, dense, gray_frames, num_latent_frames

MASK_CHANNELS = VAE_STRIDE[1] * VAE_STRIDE[2]
CONTEXT_CHANNELS = 2 * LATENT_CHANNELS + MASK_CHANNELS


@dataclass(frozen=True, eq=False)
class VCUContext:
    """The network's conditioning: one or more contexts, and the number of reference latents.

    Args:
        contexts: [1, K, 96, T, h, w] float32: 16 channels of kept pixels, 16 of controls, 64 of mask; latents
            in the network's normalized space. T counts the reference latents, which come first.
        num_reference_latents: leading latent frames that are references.
        num_frames, width, height: of the video in pixels.
        context_scale: the K units' strengths. `frames` holds K floats, or, as soon as one differs between
            latent frames, K tuples of T floats. There a reference counts as much as its unit at its
            strongest, so that a strength that is the same everywhere means the same either way.
        notes: what the units report about fitting their inputs.
        step_ranges: the K units' parts of the sampling steps, in which their contexts act; see `VCU`.
    """

    contexts: Tensor
    num_reference_latents: int
    num_frames: int
    width: int
    height: int
    context_scale: ContextScale
    notes: tuple[str, ...] = ()
    step_ranges: tuple[tuple[float, float], ...] = (ALL_STEPS,)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Shape [1, 16, T, h, w] of the latents to be generated, references included."""
        return (1, LATENT_CHANNELS, *self.contexts.shape[3:])

    def trim(self, latents: Tensor) -> Tensor:
        """Drop the references' frames: [B, 16, T, h, w] -> the video's own latents."""
        if latents.shape[2] != self.contexts.shape[3]:
            raise ValueError(
                f"latents have {counted(latents.shape[2], 'frame')}, the context has "
                f"{self.contexts.shape[3]} ({self.num_reference_latents} of them references); "
                "pass what was sampled with it, untrimmed"
            )
        return latents[:, :, self.num_reference_latents :]


def encode(
    units: VCU | Sequence[VCU],
    vae_encode: VaeEncode,
    *,
    cache: GrayCache | None = None,
    vae: object | None = None,
    max_batch: int | MaxBatch = 1,
    names: Sequence[str] | None = None,
) -> VCUContext:
    """Encode one unit, or several that keep their own strength, into contexts of one length.

    References of all units come first, in order, an image that several units share once. In the context of a
    unit that does not bring it, a reference's place is left free (gray, mask 1).

    Args:
        units: one VCU or several of one size and length.
        vae_encode: video [B, F, H, W, 3] in [0, 1] -> latents [B, 16, T, h, w] in the network's normalized
            space.
        cache: keeps latents between calls: of gray clips, or with a `LatentCache` of all clips as long as
            their units live; None = only within this call.
        vae: the object the cache knows the VAE by; None = the owner of `vae_encode`, where it is a method, or
            itself.
        max_batch: how many new clips, such as the two halves of a masked one, may go to the VAE in one call:
            a number, or a function of a clip's shape (F, H, W, 3) that looks at the memory there is, asked
            right before a call that could take several.
        names: what to call each unit in messages; None = 'unit 1', ..
    Returns:
        The contexts, on the device of the VAE's latents.
    Raises:
        ValueError: units differ in size or length, or the VAE returns another shape than Wan's.
    """
    units = (units,) if isinstance(units, VCU) else tuple(as_list(units, "units"))
    units, fitted = _checked(units, names)
    first = units[0]
    owner = vae if vae is not None else getattr(vae_encode, "__self__", vae_encode)
    # The VAE's own copy of a clip, and the clip where it is rendered for that.
    num_copies = 2 if any(bool((dense(unit.masks) <= 0.5).any()) for unit in units) else 1
    check_volume(first.num_frames, first.width, first.height, RGB * num_copies)
    coder = Coder(vae_encode, GrayCache() if cache is None else cache, owner, max_batch)

    slots, places = _gather_references(units)
    latents = coder.encode([half for unit in units for half in halves(unit)])
    references = coder.encode(slots)
    contexts = []
    for index, unit in enumerate(units):
        parts = [_reference_slot(references[i], i in places[index], coder, first) for i in range(len(slots))]
        inactive, reactive = latents[2 * index : 2 * index + 2]
        parts.append(torch.cat([inactive, reactive, mask_channels(unit.masks).to(inactive)]))
        contexts.append(torch.cat([part.to(coder.device) for part in parts], dim=1))
    return VCUContext(
        contexts=torch.stack(contexts)[None],
        num_reference_latents=len(slots),
        num_frames=first.num_frames,
        width=first.width,
        height=first.height,
        context_scale=_context_scale(units, len(slots)),
        step_ranges=tuple(unit.step_range for unit in units),
        notes=(*dict.fromkeys(note for unit in units for note in unit.notes), *fitted),
    )


def latent_shape(units: VCU | Sequence[VCU]) -> tuple[int, int, int, int, int]:
    """Shape [1, 16, T, h, w] of the latents that `encode` makes a context for, references included.

    Raises:
        ValueError: units differ in size or length.
    """
    units, _ = _checked((units,) if isinstance(units, VCU) else tuple(as_list(units, "units")))
    first, num_references = units[0], len(_gather_references(units)[0])
    _, stride_y, stride_x = VAE_STRIDE
    num_frames = num_latent_frames(first.num_frames) + num_references
    return (1, LATENT_CHANNELS, num_frames, first.height // stride_y, first.width // stride_x)


def mask_channels(masks: Tensor) -> Tensor:
    """Binarize masks [F, H, W] and fold 8x8 blocks into channels: [64, T, h, w], nearest-exact in time.

    VACE's code binarizes a mask only for the two halves of the frames: resizing leaves values between 0 and 1
    at the outline of its mask channels. Here both use the same binary mask.
    """
    num_frames = len(masks)
    _, stride_y, stride_x = VAE_STRIDE
    # The frame sampled for each latent frame is computed once, so that only those are folded.
    frames = torch.arange(num_frames, dtype=torch.float32)[None, None]
    frames = F.interpolate(frames, size=num_latent_frames(num_frames), mode="nearest-exact")[0, 0].long()
    masks = (masks[frames.to(masks.device)] > 0.5).float()
    return rearrange(masks, "t (h y) (w x) -> (y x) t h w", y=stride_y, x=stride_x)


def _reference_slot(latent: Tensor, own: bool, coder: Coder, unit: VCU) -> Tensor:
    """One latent frame [96, 1, h, w]: the reference with zeros and mask 0, or gray twice with mask 1."""
    mask = latent.new_full((MASK_CHANNELS, *latent.shape[1:]), 0.0 if own else 1.0)
    if own:
        return torch.cat([latent, torch.zeros_like(latent), mask])
    gray = coder.encode([Clip(gray_frames(1, unit.height, unit.width, unit.frames.device))])[0]
    return torch.cat([gray, gray, mask])


def _gather_references(units: tuple[VCU, ...]) -> tuple[list[Clip], list[set[int]]]:
    """Every distinct reference in order, letterboxed, and which of them each unit brings."""
    slots: list[Clip] = []
    places: list[set[int]] = []
    for unit in units:
        own: set[int] = set()
        for image in unit.references:
            canvas = Clip(letterbox(image, unit.width, unit.height)[None], source=image)
            # Within one unit an image given twice is meant twice; between units it is the same reference.
            match = next((i for i, slot in enumerate(slots) if i not in own and slot.equals(canvas)), None)
            if match is None:
                slots.append(canvas)
                match = len(slots) - 1
            own.add(match)
        places.append(own)
    return slots, places


def _checked(units: tuple[VCU, ...], names: Sequence[str] | None = None) -> tuple[tuple[VCU, ...], list[str]]:
    """Units of one size and length, and notes on those that were fitted; ValueError for others."""
    if not units:
        raise ValueError("nothing to encode; give at least one unit")
    names = [f"unit {number + 1}" for number in range(len(units))] if names is None else names
    for name, unit in zip(names, units, strict=True):
        if not isinstance(unit, VCU):
            raise ValueError(f"{name} is a {type(unit).__name__}, expected a VCU; make it with a builder")
    named, fitted = fit_units([(f"{name} ({unit})", unit) for name, unit in zip(names, units, strict=True)])
    for name, unit in named:
        if unit.frames.shape != named[0][1].frames.shape:
            raise ValueError(
                f"{named[0][0]} and {name} differ; all units of a video need one size and length. Give the "
                "same width, height and length to the nodes that make them"
            )
    return tuple(unit for _, unit in named), fitted


def _context_scale(units: tuple[VCU, ...], num_references: int) -> ContextScale:
    """See `VCUContext`."""
    if all(isinstance(unit.strength, float) for unit in units):
        return ContextScale(frames=tuple(unit.strength for unit in units))
    return ContextScale(
        frames=tuple((max(unit.strengths),) * num_references + unit.strengths for unit in units)
    )
