"""Encodes units as the network's 96-channel contexts; equal clips are encoded once.

Shape letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents, K contexts, R references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..memory import RGB
from ..networks.context_scale import ContextScale
from ..progress import steps
from ..text import counted
from .canvas import letterbox
from .checks import as_list, check_volume
from .gray_cache import GrayCache
from .lengths import fit_units
from .unit import GRAY, VAE_STRIDE, VCU, dense, gray_frames, num_latent_frames

LATENT_CHANNELS = 16
MASK_CHANNELS = VAE_STRIDE[1] * VAE_STRIDE[2]
CONTEXT_CHANNELS = 2 * LATENT_CHANNELS + MASK_CHANNELS

VaeEncode = Callable[[Tensor], Tensor]
MaxBatch = Callable[[tuple[int, ...]], int]


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
    """

    contexts: Tensor
    num_reference_latents: int
    num_frames: int
    width: int
    height: int
    context_scale: ContextScale
    notes: tuple[str, ...] = ()

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
) -> VCUContext:
    """Encode one unit, or several that keep their own strength, into contexts of one length.

    References of all units come first, in order, an image that several units share once. In the context of a
    unit that does not bring it, a reference's place is left free (gray, mask 1).

    Args:
        units: one VCU or several of one size and length.
        vae_encode: video [B, F, H, W, 3] in [0, 1] -> latents [B, 16, T, h, w] in the network's normalized
            space.
        cache: keeps the latents of gray clips between calls; None = only within this call.
        vae: the object the cache knows the VAE by; None = the owner of `vae_encode`, where it is a method, or
            itself.
        max_batch: how many new clips, such as the two halves of a masked one, may go to the VAE in one call:
            a number, or a function of a clip's shape (F, H, W, 3) that looks at the memory there is, asked
            right before a call that could take several.
    Returns:
        The contexts, on the device of the VAE's latents.
    Raises:
        ValueError: units differ in size or length, or the VAE returns another shape than Wan's.
    """
    units = (units,) if isinstance(units, VCU) else tuple(as_list(units, "units"))
    units, fitted = _checked(units)
    first = units[0]
    owner = vae if vae is not None else getattr(vae_encode, "__self__", vae_encode)
    check_volume(first.num_frames, first.width, first.height, RGB * (1 + _num_halves(units)))
    coder = _Coder(vae_encode, GrayCache() if cache is None else cache, owner, max_batch)

    slots, places = _gather_references(units)
    halves = coder.clips([half for unit in units for half in split(unit)])
    references = coder.clips([image[None] for image in slots])
    contexts = []
    for index, unit in enumerate(units):
        parts = [_reference_slot(references[i], i in places[index], coder, first) for i in range(len(slots))]
        parts.append(torch.cat([*halves[2 * index : 2 * index + 2], mask_channels(unit.masks).to(halves[0])]))
        contexts.append(torch.cat([part.to(coder.device) for part in parts], dim=1))
    return VCUContext(
        contexts=torch.stack(contexts)[None],
        num_reference_latents=len(slots),
        num_frames=first.num_frames,
        width=first.width,
        height=first.height,
        context_scale=_context_scale(units, len(slots)),
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


def _num_halves(units: tuple[VCU, ...]) -> int:
    """Halves that are clips of their own: of a unit that keeps something both, of others none."""
    return 2 * sum(not bool((dense(unit.masks) > 0.5).all()) for unit in units)


def split(unit: VCU) -> tuple[Tensor, Tensor]:
    """The inactive (kept) and the reactive (generated) half of a unit's frames, [F, H, W, 3] each."""
    if bool((dense(unit.masks) > 0.5).all()):
        return gray_frames(unit.num_frames, unit.height, unit.width, unit.frames.device), unit.frames
    generate = unit.masks[..., None] > 0.5
    return torch.where(generate, GRAY, unit.frames), torch.where(generate, unit.frames, GRAY)


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


def _reference_slot(latent: Tensor, own: bool, coder: _Coder, unit: VCU) -> Tensor:
    """One latent frame [96, 1, h, w]: the reference with zeros and mask 0, or gray twice with mask 1."""
    mask = latent.new_full((MASK_CHANNELS, *latent.shape[1:]), 0.0 if own else 1.0)
    if own:
        return torch.cat([latent, torch.zeros_like(latent), mask])
    gray = coder.clips([gray_frames(1, unit.height, unit.width, unit.frames.device)])[0]
    return torch.cat([gray, gray, mask])


def _gather_references(units: tuple[VCU, ...]) -> tuple[list[Tensor], list[set[int]]]:
    """Every distinct reference in order, letterboxed, and which of them each unit brings."""
    slots: list[Tensor] = []
    places: list[set[int]] = []
    for unit in units:
        own: set[int] = set()
        for image in unit.references:
            canvas = letterbox(image, unit.width, unit.height)
            # Within one unit an image given twice is meant twice; between units it is the same reference.
            match = next((i for i, slot in enumerate(slots) if i not in own and _equal(slot, canvas)), None)
            if match is None:
                slots.append(canvas)
                match = len(slots) - 1
            own.add(match)
        places.append(own)
    return slots, places


class _Coder:
    """Encodes clips, each distinct one once."""

    def __init__(self, vae_encode: VaeEncode, cache: GrayCache, owner: object, max_batch: int | MaxBatch):
        self.vae_encode, self.cache, self.owner, self.max_batch = vae_encode, cache, owner, max_batch
        self.device: torch.device | None = None

    def clips(self, clips: list[Tensor]) -> list[Tensor]:
        """[F, H, W, 3] each, all of one shape -> [16, T, h, w] float32 each."""
        results: list[Tensor | None] = [None] * len(clips)
        pending: list[tuple[Tensor, bool, list[int]]] = []
        for index, clip in enumerate(clips):
            # Frame by frame: most clips show at the first one that they are not gray.
            gray = all(bool((frame == GRAY).all()) for frame in dense(clip))
            cached = self.cache.get(self.owner, tuple(clip.shape)) if gray else None
            if cached is not None:
                results[index] = cached
                continue
            twin = next(
                (item for item in pending if item[1] == gray and (gray or _equal(item[0], clip))), None
            )
            if twin is not None:
                twin[2].append(index)
            else:
                pending.append((clip, gray, [index]))
        for (clip, gray, users), latents in zip(
            pending, self._run([item[0] for item in pending]), strict=True
        ):
            if gray:
                self.cache.put(self.owner, tuple(clip.shape), latents)
            for index in users:
                results[index] = latents
        # A VAE may have moved since the cache was filled: what it gives now says where it is.
        if results and self.device is None:
            self.device = results[0].device
        return [latents.to(self.device) for latents in results]

    def _run(self, clips: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = []
        for start in steps(range(len(clips))):
            if start < len(results):
                continue  # was encoded with the one before
            group = clips[len(results) : len(results) + self._batch_size(clips[len(results) :])]
            if len(group) == 1:
                results.append(self._call(group[0][None])[0])
            else:
                # Copies, so that one that is kept does not keep the others.
                results.extend(latents.clone() for latents in self._call(torch.stack(group)))
        return results

    def _batch_size(self, clips: list[Tensor]) -> int:
        if len(clips) == 1:
            return 1
        size = self.max_batch(tuple(clips[0].shape)) if callable(self.max_batch) else self.max_batch
        if size < 1:
            raise ValueError(f"max_batch is {size}; give 1 (one clip at a time) or more")
        return size

    def _call(self, video: Tensor) -> Tensor:
        latents = self.vae_encode(video)
        batch, num_frames, height, width, _ = video.shape
        _, stride_y, stride_x = VAE_STRIDE
        expected = (
            batch,
            LATENT_CHANNELS,
            num_latent_frames(num_frames),
            height // stride_y,
            width // stride_x,
        )
        if tuple(latents.shape) != expected:
            raise ValueError(
                f"the VAE gave latents {list(latents.shape)} for a video {list(video.shape)}, expected "
                f"{list(expected)}; use the Wan 2.1 VAE"
            )
        self.device = latents.device
        return latents.float()


def _checked(units: tuple[VCU, ...]) -> tuple[tuple[VCU, ...], list[str]]:
    """Units of one size and length, and notes on those that were fitted; ValueError for others."""
    if not units:
        raise ValueError("nothing to encode; give at least one unit")
    for number, unit in enumerate(units, 1):
        if not isinstance(unit, VCU):
            raise ValueError(
                f"unit {number} is a {type(unit).__name__}, expected a VCU; make it with a builder"
            )
    named, fitted = fit_units([(f"unit {number} ({unit})", unit) for number, unit in enumerate(units, 1)])
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


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)
