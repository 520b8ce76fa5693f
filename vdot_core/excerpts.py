"""Reads a span of a video as frames of one size and rate, with its sound.

Letters: F frames, H W pixels, C channels of sound, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .progress import steps
from .scratch import is_mapped, new_frames
from .sounds import Sound, read_sound
from .text import counted, shown
from .vcu import snap_length
from .vcu.checks import MAX_FRAMES, real, whole
from .vcu.scaling import fill_cover
from .videos import RATES, nearest_frames, open_video, timed_frames, upright

if TYPE_CHECKING:
    from av.container import InputContainer

ROUNDING = 1e-3
"""Seconds; of a container's times."""
SAME_RATE = 0.01
MAX_START = 1e7
"""Seconds, of about four months: FFmpeg counts in millionths."""

Fit = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Span:
    """A part of a video, and the form in which it is read.

    Args:
        start: its first moment, in seconds.
        rate: frames per second of the result; None keeps the video's own.
        most_frames: the result has at most as many.
        fit: (width, height) of the video -> of the result.

    Raises:
        ValueError: one of the numbers is out of range.
    """

    start: float
    rate: float | None
    most_frames: int
    fit: Fit

    def __post_init__(self) -> None:
        real("start", self.start, 0.0, MAX_START)
        whole("most_frames", self.most_frames, 1, MAX_FRAMES)
        if self.rate is not None:
            real("fps", self.rate, *RATES)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A span of a video.

    Args:
        frames: [F, H, W, 3] float32 in [0, 1]; F is 4n+1.
        rate: frames per second.
        source_size: width and height of the video that it was read from.
        sound: of the same span; None where the video has none.
        notes: what was left out, repeated or scaled, one sentence each.
    """

    frames: Tensor
    rate: float
    source_size: tuple[int, int]
    sound: Sound | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.rate


def read_excerpt(file: str | Path | IO[bytes], span: Span, scratch: Path | None = None) -> Excerpt:
    """Decode a span of a video file; what lies before and behind it is not kept.

    Args:
        file: path, or a stream of the file's bytes.
        span: what to read.
        scratch: folder for frames that are too large for memory, see `scratch.new_frames`.

    Raises:
        ValueError: no video that can be decoded, nothing at `span.start`, or too large.
    """
    import av

    name = shown(Path(file).name) if isinstance(file, (str, Path)) else "the video"
    try:
        with open_video(file) as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video stream; give a video file")
            container.streams.video[0].thread_type = "AUTO"
            frames, rate, size, notes = _read_frames(container, span, scratch)
        sound, lines = read_sound(file, span.start, len(frames) / rate)
    except av.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded: {shown(error)}; save it as H.264 in mp4") from error
    return Excerpt(frames, rate, size, sound, (*notes, *lines))


def cut_excerpt(
    frames: Tensor, rate: float, sound: Sound | None, span: Span, scratch: Path | None = None
) -> Excerpt:
    """The same of a video that is already in memory.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        rate: frames per second.
        sound: of all of it.
        span: what to take.
        scratch: as in `read_excerpt`.
    """
    timed = ((number / rate, frame) for number, frame in enumerate(frames))
    ready, new_rate, size, notes = _collect(
        timed, lambda frame: frame[..., :3], rate, len(frames) / rate, span, scratch
    )
    sound = None if sound is None else sound.cut(span.start, len(ready) / new_rate)
    return Excerpt(ready, new_rate, size, sound, notes)


def _read_frames(container: InputContainer, span: Span, scratch: Path | None):
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate
    duration = stream.duration and float(stream.duration * stream.time_base)
    duration = duration or (container.duration and container.duration / 1_000_000)
    if rate is None:
        raise ValueError("the video says nothing of its frame rate; save it as H.264 in mp4")

    def pixels(frame: Any) -> Tensor:
        return torch.from_numpy(upright(frame, stream).astype(np.float32)) / 65535

    return _collect(timed_frames(container, span.start), pixels, float(rate), duration, span, scratch)


def _collect(
    timed: Iterable[tuple[float, Any]],
    pixels: Callable[[Any], Tensor],
    average_rate: float,
    duration: float | None,
    span: Span,
    scratch: Path | None,
) -> tuple[Tensor, float, tuple[int, int], tuple[str, ...]]:
    """Frames, rate, source's width and height, and notes."""
    limit = span.most_frames
    if duration:  # the file's word for it may be off by a little
        limit = max(1, min(limit, math.ceil((duration - span.start) * (span.rate or average_rate)) + 2))
    counting = _Numbered(timed)
    items = _chosen(counting, span, limit)
    first = next(items, None)
    if first is None:
        length = f" is {counting.last:.3g} seconds long" if counting.count else " holds no frame"
        raise ValueError(f"the video{length}, and start is {span.start:g}; give a smaller start")
    image = pixels(first.content)
    source = image.shape[1], image.shape[0]
    out, notes = new_frames(limit, *span.fit(*source), scratch, "give a smaller length or size")
    fill_cover(out[:1], image[None])
    taken = [replace(first, content=None)]  # decoded frames are larger than their place in the clip
    for index, item in zip(steps(range(1, limit)), items, strict=False):
        if item.number == taken[-1].number:
            out[index] = out[index - 1]
        else:
            fill_cover(out[index : index + 1], pixels(item.content)[None])
        taken.append(replace(item, content=None))
    total = snap_length(len(taken))
    own_rate = _own_rate(taken, average_rate)
    rate = span.rate or own_rate
    notes += [*_rate_notes(taken[:total], own_rate, rate), *_size_notes(source, out.shape[2:0:-1])]
    if total < len(taken):
        rest = counted(len(taken) - total, "frame")
        notes.append(f"{len(taken)} -> {counted(total, 'frame')} (4n+1): {rest} dropped at the end")
    short = total < limit / 2 and not is_mapped(out)
    return (out[:total].clone() if short else out[:total]), rate, source, tuple(notes)


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame of the video: its number from where reading began, its time in seconds, and what it holds."""

    number: int
    time: float
    content: Any


class _Numbered:
    """Frames by their times.

    Attributes:
        count: frames seen so far.
        last: time of the last one, in seconds.
    """

    def __init__(self, timed: Iterable[tuple[float, Any]]) -> None:
        self._timed, self.count, self.last = timed, 0, 0.0

    def __iter__(self) -> Iterator[tuple[float, _Frame]]:
        for time, content in self._timed:
            self.count, self.last = self.count + 1, time
            yield time, _Frame(self.count, time, content)


def _chosen(frames: Iterable[tuple[float, _Frame]], span: Span, limit: int) -> Iterator[_Frame]:
    """The frames at the moments of the span, or every frame of it."""
    if span.rate:
        return nearest_frames(frames, span.rate, limit, span.start)
    inside = (frame for time, frame in frames if time >= span.start - ROUNDING)
    return islice(inside, limit)


def _own_rate(taken: list[_Frame], average: float) -> float:
    """Frames per second of a part of a video; the file's own word where that fits its frames' times."""
    first, last = taken[0], taken[-1]
    if last.time <= first.time:
        return average
    measured = (last.number - first.number) / (last.time - first.time)
    return average if abs(measured / average - 1) < SAME_RATE else measured


def _rate_notes(taken: list[_Frame], own_rate: float, rate: float) -> list[str]:
    """Notes on frames that a change of the frame rate dropped or repeated."""
    num_shown = len({frame.number for frame in taken})
    dropped, repeated = taken[-1].number - taken[0].number + 1 - num_shown, len(taken) - num_shown
    if not dropped and not repeated:
        return []
    parts = [f"{counted(dropped, 'frame')} dropped"] * bool(dropped)
    parts += [f"{counted(repeated, 'frame')} repeated"] * bool(repeated)
    return [f"{_short(own_rate)} -> {_short(rate)} fps: {', '.join(parts)}"]


def _short(rate: float) -> str:
    return f"{float(Fraction(rate).limit_denominator(1001)):.5g}"


def _size_notes(source: tuple[int, ...], size: tuple[int, ...]) -> list[str]:
    return [] if source == tuple(size) else [f"{source[0]}x{source[1]} -> {size[0]}x{size[1]}"]
