"""A video of any length, chunk by chunk: memory does not grow with it.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...vcu import LATENT_CHANNELS, VCU, GrayCache, VCUContext, encode
from ...vcu.coder import VaeEncode
from .chunks import Tail, carried, continued, latent_mask, sliced, uncontrolled
from .drift import Colors, anchored, colors_of, fade, matched
from .plan import Change, Span, changed_at

CARRIES = ("pixels", "latents")
FADES = ("pixels", "latents", "off")


@dataclass(frozen=True)
class Joining:
    """Settings for joining chunks.

    Args:
        carry: the next chunk gets the overlap as 'pixels' (encoded again) or as 'latents' (its first frame
            encoded, the groups of four taken over: exact, but with a longer history than the groups after a
            first frame have, so that their statistics are not those that the model was trained on).
        drift: keep the colors of the first chunk where neither a mask nor a control decides them.
        fade: cross-fade seams.
        anchor: how strongly a chunk's end is drawn to the first chunk's colors, 0 .. 1.
    """

    carry: str = "pixels"
    drift: bool = True
    fade: str = "pixels"
    anchor: float = 0.5


@dataclass(frozen=True, eq=False)
class Chunk:
    """A finished stretch of the video.

    Args:
        span: of the chunk.
        start: the video's first frame in `frames`; they follow those of the chunk before.
        frames: [F, H, W, 3] float in [0, 1].
        latents: [1, 16, T, h, w] of all of the chunk's frames, as decoded.
    """

    span: Span
    start: int
    frames: Tensor
    latents: Tensor


Sampler = Callable[[VCUContext, Span, Any], Tensor]


def generate(
    units: VCU | Callable[[Span], VCU],
    spans: Sequence[Span],
    *,
    vae_encode: VaeEncode,
    vae_decode: Callable[[Tensor], Tensor],
    sample: Sampler,
    joining: Joining | None = None,
    changes: Sequence[Change] = (),
    cache: GrayCache | None = None,
    encode_options: dict[str, Any] | None = None,
) -> Iterator[Chunk]:
    """Make a unit of any length; each chunk continues from the end of the one before.

    Args:
        units: the task, or a function that gives the part of it in a span.
        spans: of `plan_chunks`.
        vae_encode: as in `vcu.encode`.
        vae_decode: latents [1, 16, T, h, w] in the network's space -> [1, F, H, W, 3] in [0, 1].
        sample: (the chunk's context, its span, its prompt) -> latents [1, 16, T, h, w] with the references';
            noise by `chunk_seed`.
        joining: None = the defaults.
        changes: references and prompts by frame.
        cache, encode_options: of `vcu.encode`.
    Yields:
        Finished stretches in order; together they are the video.
    """
    joining = joining or Joining()
    coder = _Coder(vae_encode, vae_decode, GrayCache() if cache is None else cache, encode_options or {})
    unit_in = units if callable(units) else (lambda span: sliced(units, span))
    tail, first = None, None
    for span in spans:
        references, prompt = changed_at(changes, span)
        unit = unit_in(span)
        unit = unit if references is None else unit.replace(references=references)
        latents, overlap = _latents(unit, span, tail, joining, coder, sample, prompt)
        if joining.drift:
            latents, first = _without_drift(latents, unit, overlap, first, joining)
        if tail is not None and joining.fade == "latents":
            latents = _faded_latents(latents, tail)
        frames = coder.decode(latents)[0].clamp(0, 1)
        if tail is not None and joining.fade == "pixels":
            count = span.overlap
            frames[1:count] = fade(tail.frames[1:], frames[1:count], 0)
        yield _finished(span, frames, latents)
        tail = _tail(span, frames, latents)


@dataclass(frozen=True, eq=False)
class _Coder:
    """The VAE, and what `vcu.encode` needs."""

    encode_video: VaeEncode
    decode: Callable[[Tensor], Tensor]
    cache: GrayCache
    options: dict[str, Any]

    def context(self, unit: VCU) -> VCUContext:
        return encode(unit, self.encode_video, cache=self.cache, **self.options)


def _latents(
    unit: VCU, span: Span, tail: Tail | None, joining: Joining, coder: _Coder, sample: Sampler, prompt: Any
) -> tuple[Tensor, Tensor | None]:
    """The chunk's own latents as sampled, and what it was given of the overlap.

    Those of frames that are all given are only encoded.
    """
    if not bool((unit.masks[span.overlap :] > 0.5).any()):
        return coder.encode_video(continued(unit, tail).frames[None]).float(), None
    context = coder.context(continued(unit, tail))
    if joining.carry == "latents":
        context = carried(context, unit, tail)
    num_references = context.num_reference_latents
    latents = sample(context, span, prompt)[:, :, num_references:]
    if tail is None:
        return latents, None
    count = 1 + tail.latents.shape[2]
    return latents, context.contexts[:, 0, :LATENT_CHANNELS, num_references : num_references + count]


def _without_drift(
    latents: Tensor, unit: VCU, overlap: Tensor | None, first: Colors | None, joining: Joining
) -> tuple[Tensor, Colors | None]:
    """The latents in the colors of the overlap and the first chunk, and the first chunk's colors."""
    free = latent_mask(uncontrolled(unit).float(), partly=False).to(latents.device)
    if first is None:
        shown = free | ~latent_mask(unit.masks, partly=True).to(free.device).flatten(1).any(1)[:, None, None]
        shown = shown.clone()
        shown[0] = False  # the first latent frame, of one frame, has another contrast
        first = colors_of(latents, shown)
    elif overlap is not None:
        latents = matched(latents, overlap, latent_mask(unit.masks, partly=False).to(latents.device))
        latents = anchored(latents, first, free, overlap.shape[2], joining.anchor)
    return latents, first


def _faded_latents(latents: Tensor, tail: Tail) -> Tensor:
    count = tail.latents.shape[2]
    overlap = fade(tail.latents, latents[:, :, 1 : 1 + count], 2)
    return torch.cat([latents[:, :, :1], overlap, latents[:, :, 1 + count :]], dim=2)


def _finished(span: Span, frames: Tensor, latents: Tensor) -> Chunk:
    """The frames that no later chunk changes: of an overlap, the first, which both have."""
    begin = 1 if span.overlap else 0
    end = len(frames) - max(0, span.handed_on - 1)
    return Chunk(span, span.start + begin, frames[begin:end], latents)


def _tail(span: Span, frames: Tensor, latents: Tensor) -> Tail | None:
    if not span.handed_on:
        return None
    count = (span.handed_on - 1) // 4
    return Tail(frames[-span.handed_on :].clone(), latents[:, :, latents.shape[2] - count :].clone())
