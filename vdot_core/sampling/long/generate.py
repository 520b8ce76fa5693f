"""A video of any length, chunk by chunk: memory does not grow with it.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...vcu import LATENT_CHANNELS, VCU, GrayCache, VCUContext, encode, paste_back
from ...vcu.coder import VaeEncode
from ...vcu.unit import num_latent_frames
from .chunks import closed, continued, generated_latents, sliced
from .drift import corrected, fade, matched, measure
from .plan import Change, Span, changed_at


@dataclass(frozen=True)
class Joining:
    """Settings for joining chunks.

    Args:
        drift: take the error that the overlap shows out of each chunk's colors, contrast and sharpness; not
            of chunks that keep pixels of a clip, whose colors hold the chunk's.
        fade: cross-fade the overlap.
        paste_back: kept pixels are the unit's own, as `vcu.paste_back` restores them. A kept frame between
            others stays as the VAE decodes it: restored alone, a start picture would let the video jump.
        match_colors: of `paste_back`: generated pixels in the colors of the kept ones around them.
    """

    drift: bool = True
    fade: bool = True
    paste_back: bool = True
    match_colors: bool = False


@dataclass(frozen=True, eq=False)
class Chunk:
    """A finished stretch of the video.

    Args:
        span: of the chunk.
        start: the video's first frame in `frames`; they follow those of the chunk before.
        frames: [F, H, W, 3] float in [0, 1].
    """

    span: Span
    start: int
    frames: Tensor


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
        spans: of `plan_chunks`; of a loop where the last one hands on to the first.
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
    known = first = None
    for span in spans:
        references, prompt = changed_at(changes, span)
        closing = span.handed_on - 1 if span is spans[-1] and span.handed_on else 0
        unit = unit_in(replace(span, stop=span.stop - closing))
        here = replace(joining, drift=joining.drift and not _keeps_pixels(unit, span))
        unit = closed(unit, first) if closing else unit
        unit = unit if references is None else unit.replace(references=references)
        if here.paste_back and not _generates(unit, span):
            frames = continued(unit, known).frames.float().clone()
        else:
            frames = coder.decode(_latents(unit, span, known, here, coder, sample, prompt))[0].clamp(0, 1)
            if known is not None:
                frames = _joined(frames, known, unit, here, first if closing else None)
            if here.paste_back:
                frames = _restored(frames, unit, here.match_colors)
        first = frames[: max(0, spans[-1].handed_on - 1)].clone() if first is None else first
        yield _finished(span, frames)
        known = frames[-span.handed_on :].clone() if span.handed_on else None


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
    unit: VCU,
    span: Span,
    known: Tensor | None,
    joining: Joining,
    coder: _Coder,
    sample: Sampler,
    prompt: Any,
) -> Tensor:
    """The chunk's latents in the colors of the overlap; frames that are all kept are only encoded."""
    task = continued(unit, known)
    if not _generates(unit, span):
        return coder.encode_video(task.frames[None]).float()
    context = coder.context(task)
    latents = context.trim(sample(context, span, prompt))
    if known is None or not joining.drift:
        return latents
    first = context.num_reference_latents
    overlap = context.contexts[:, 0, :LATENT_CHANNELS, first : first + num_latent_frames(len(known))]
    return matched(latents, overlap, generated_latents(unit.masks))


def _generates(unit: VCU, span: Span) -> bool:
    """False if the chunk is given in full behind the overlap."""
    return bool((unit.masks[span.overlap :] > 0.5).any())


def _restored(frames: Tensor, unit: VCU, match_colors: bool) -> Tensor:
    """A chunk's frames with the kept pixels of its unit, but for frames that are kept alone."""
    whole = F.pad(~(unit.masks > 0.5).flatten(1).any(1), (1, 1))
    alone = whole[1:-1] & ~whole[:-2] & ~whole[2:]
    if alone.any():
        unit = unit.replace(masks=torch.where(alone.view(-1, 1, 1), 1.0, unit.masks))
    keeps = bool((unit.masks <= 0.5).any())
    return paste_back(frames, unit, match_colors=match_colors) if keeps else frames


def _keeps_pixels(unit: VCU, span: Span) -> bool:
    """True if the chunk keeps pixels of its clip behind the overlap: these hold its colors, by themselves."""
    return bool((unit.masks[span.overlap :] <= 0.5).any())


def _joined(frames: Tensor, known: Tensor, unit: VCU, joining: Joining, following: Tensor | None) -> Tensor:
    """A chunk's frames in the colors of the overlap, into which they fade, and of what follows in a loop."""
    count = len(known)
    if joining.drift:
        generated = (unit.masks > 0.5).to(frames.device)
        ends = [measure(frames[:count], known, generated[:count])]
        if following is not None:
            last = frames[-len(following) :]
            ends.append(measure(last, following, torch.ones_like(last[..., 0], dtype=torch.bool)))
        versions = [frames if end is None else corrected(frames, end, generated) for end in ends]
        weight = torch.linspace(0, 1, len(frames), device=frames.device).view(-1, 1, 1, 1)
        frames = torch.lerp(*versions, weight) if following is not None else versions[0]
    if joining.fade:
        frames[1:count] = fade(known[1:], frames[1:count], 0)
    return frames


def _finished(span: Span, frames: Tensor) -> Chunk:
    """The frames that no later chunk changes: of an overlap, the first, which both have."""
    begin = 1 if span.overlap else 0
    end = len(frames) - max(0, span.handed_on - 1)
    return Chunk(span, span.start + begin, frames[begin:end])
