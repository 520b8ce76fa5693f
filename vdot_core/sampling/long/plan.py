"""Chunks of a long video, and what changes between them. Shape letters: F pixel frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...choices import ALL_STEPS
from ...text import counted
from ...vcu import VCU
from ...vcu.alike import taken_settings
from ...vcu.checks import MAX_FRAMES, whole
from ...vcu.unit import VAE_STRIDE


@dataclass(frozen=True)
class Span:
    """One chunk: the frames start .. stop - 1 of the video.

    Args:
        index: from 0.
        start, stop: frames of the video; stop - start is 4n+1.
        overlap: leading frames that the chunk before has made: 0 or 4n+1.
        handed_on: trailing frames that the next chunk repeats; of the last chunk of a loop, that the first
            one has made.
    """

    index: int
    start: int
    stop: int
    overlap: int = 0
    handed_on: int = 0

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def first_new(self) -> int:
        """The first frame of the video that this chunk adds."""
        return self.start + self.overlap


def plan_chunks(num_frames: int, chunk: int = 81, overlap: int = 17, loop: bool = False) -> tuple[Span, ...]:
    """Divide a video into the fewest chunks of nearly one length, so that the last is not a small one.

    The last chunk of a loop goes past the video's end, to the overlap's end in its beginning.

    Args:
        num_frames: of the video, 4n+1.
        chunk: most frames of a chunk, 4n+1: what the model was trained with.
        overlap: frames that two neighbors share, 4n+1: one frame, and groups of four like the VAE's.
        loop: the video's end leads to its beginning.
    Raises:
        ValueError: a number is not 4n+1, the overlap leaves nothing of a chunk, or a loop has a single chunk.
    """
    if loop:
        return _plan_loop(num_frames, chunk, overlap)
    sizes = {"num_frames": num_frames, "chunk": chunk, "overlap": overlap}
    total, longest, shared = (_groups(name, value) for name, value in sizes.items())
    if shared >= longest:
        raise ValueError(
            f"overlap is {overlap}, chunk is {chunk}: nothing new is left; give an overlap below the chunk"
        )
    if total <= longest:
        return (Span(0, 0, num_frames),)
    new, count = total - shared, -(-(total - shared) // (longest - shared))
    # Where each chunk's new groups begin: differences of evenly spaced, rounded marks differ by one at most.
    marks = [shared + round(index * new / count) for index in range(count + 1)]
    stride, spans = VAE_STRIDE[0], []
    for index in range(count):
        start = stride * (marks[index] - shared)
        stop = stride * marks[index + 1] + 1
        before, after = (overlap if there else 0 for there in (index > 0, index < count - 1))
        spans.append(Span(index, start, stop, before, after))
    return tuple(spans)


def _plan_loop(num_frames: int, chunk: int, overlap: int) -> tuple[Span, ...]:
    _groups("num_frames", num_frames)
    spans = plan_chunks(num_frames + overlap - 1, chunk, overlap)
    last = spans[-1]
    if len(spans) == 1 or last.num_frames < 2 * overlap + VAE_STRIDE[0] - 1:
        raise ValueError(
            f"a loop of {counted(num_frames, 'frame')} in chunks of {chunk} with an overlap of {overlap} has "
            "no chunk between its end and its beginning; give a longer video, or a smaller chunk or overlap"
        )
    return (*spans[:-1], replace(last, handed_on=overlap))


def chunk_seed(seed: int, index: int) -> int:
    """Seed of a chunk's noise: the video's own for the first, independent ones for the others."""
    if index == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, eq=False)
class Change:
    """From a frame on, other references or another prompt; None leaves what was before.

    Args:
        frame: of the video, from 0.
        references: images [H, W, 3] float in [0, 1] instead of the unit's.
        prompt: for the caller's sampler; never looked at here.
        strength, step_range: of the unit that brought the references, for `check_changes`; those of the
            chunk's unit hold for them.
    """

    frame: int
    references: tuple[Tensor, ...] | None = None
    prompt: Any = None
    strength: float | tuple[float, ...] = 1.0
    step_range: tuple[float, float] = ALL_STEPS


def changed_at(changes: Sequence[Change], span: Span) -> tuple[tuple[Tensor, ...] | None, Any]:
    """References and prompt of a chunk, None where no change says: a change counts from half the new frames.

    A chunk has one prompt and one set of references, so a change takes effect at the nearest seam.
    """
    references = prompt = None
    for change in sorted(changes, key=lambda change: change.frame):
        if change.frame <= (span.first_new + span.stop) // 2:
            references = references if change.references is None else change.references
            prompt = prompt if change.prompt is None else change.prompt
    return references, prompt


def changes_begin(changes: Sequence[Change], spans: Sequence[Span]) -> list[int | None]:
    """For each change the first new frame of the first chunk that has something of it, or None."""
    given = [(span.first_new, changed_at(changes, span)) for span in spans]
    return [
        next(
            (
                first
                for first, (references, prompt) in given
                if (references is not None and references is change.references)
                or (prompt is not None and prompt is change.prompt)
            ),
            None,
        )
        for change in changes
    ]


def check_changes(changes: Sequence[Change], unit: VCU) -> list[str]:
    """Refuse references whose strength or part of the steps would be lost: those of the unit hold.

    Args:
        changes: of the video.
        unit: the video's.
    Returns:
        A note on each change whose references take another strength or part of the steps.
    Raises:
        ValueError: references have a strength or a part of the steps of their own.
    """
    cure = "remove VDOT Strength or VDOT Step Range from these references"
    notes = []
    for change in changes:
        if change.references:
            name = f"the reference of frame {change.frame}"
            notes += taken_settings("unit", unit, name, change, True, "a chunk", cure)
    return notes


def _groups(name: str, value: int) -> int:
    value = whole(name, value, 1, MAX_FRAMES)
    if value % VAE_STRIDE[0] != 1:
        lower = value - (value - 1) % VAE_STRIDE[0]
        raise ValueError(
            f"{name} is {counted(value, 'frame')}, expected 4n+1 (1, 5, 9, ..); give {lower} "
            f"or {lower + VAE_STRIDE[0]}"
        )
    return (value - 1) // VAE_STRIDE[0]
