"""Sound of a span of a video.

Letters: C channels, N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from .memory import check_size
from .text import shown
from .videos import open_video

if TYPE_CHECKING:
    from av.container import InputContainer

# Times of frames are rounded to the file's time base; a larger step is a gap in the sound.
LARGEST_JITTER = 0.05
MAX_RATE = 768_000
WHOLE_SCALES = {torch.int16: 2.0**15, torch.int32: 2.0**31}


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound of any number of channels.

    Args:
        waveform: [C, N] float32, about -1 .. 1.
        rate: samples per second.
    """

    waveform: Tensor
    rate: int

    def cut(self, start: float, seconds: float) -> Sound:
        """A span of it, filled up with silence at its end."""
        first, num_samples = round(start * self.rate), round(seconds * self.rate)
        part = self.waveform[:, first : first + num_samples]
        return Sound(torch.nn.functional.pad(part, (0, num_samples - part.shape[1])), self.rate)


def read_audio(value: Any) -> dict[str, Any] | None:
    """ComfyUI's AUDIO in its plain form.

    Args:
        value: a mapping of waveform [B, C, N] or [C, N] and sample_rate. Packs such as VideoHelperSuite give
            one that is read at its first use; where that fails, as of a video without sound, it is empty.

    Returns:
        waveform, float, and sample_rate, int; None for what is no sound.
    """
    if not isinstance(value, Mapping):
        return None
    try:
        wave, rate = value.get("waveform"), value.get("sample_rate")
    except Exception as error:  # of the pack that reads it
        logging.getLogger("vdot").warning("a clip's sound cannot be read: %s", shown(error, 400))
        return {"waveform": torch.zeros(1, 1, 0), "sample_rate": 1}
    if not isinstance(wave, Tensor) or wave.ndim not in (2, 3) or wave.is_complex():
        return None
    is_whole = isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate == rate // 1
    if not is_whole or not 1 <= rate <= MAX_RATE:
        return None
    if not wave.is_floating_point():
        if wave.dtype not in WHOLE_SCALES:
            return None
        wave = wave.float() / WHOLE_SCALES[wave.dtype]
    return {"waveform": wave, "sample_rate": int(rate)}


def read_sound(file: str | Path | IO[bytes], start: float, seconds: float) -> tuple[Sound | None, list[str]]:
    """Decode the sound of a span of a video.

    Args:
        file: path, or a stream of the file's bytes.
        start: of the span, in seconds from the video's first frame.
        seconds: its length.

    Returns:
        The sound, silent where the file has none in the span; None where the file has no sound at all. And
        notes.

    Raises:
        av.FFmpegError: it cannot be decoded.
        ValueError: it would not fit into the memory.
    """
    if not isinstance(file, (str, Path)):
        file.seek(0)
    with open_video(file) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            notes = ["the sound is of an unknown codec and is left out"] * bool(container.streams.audio)
            return None, notes
        video = container.streams.video[0]
        begin = float((video.start_time or 0) * video.time_base) + start
        return _decoded(container, streams[0], begin, seconds), []


def _decoded(container: InputContainer, stream: Any, begin: float, seconds: float) -> Sound | None:
    """The sound from `begin`, in the container's own time."""
    import av

    if begin > 0:
        try:
            container.seek(int(begin * av.time_base), backward=True)
        except av.FFmpegError:
            container.seek(0)
    waveform, rate, position = None, 0, 0
    for time, samples, frame_rate in _frames(container, stream):
        if waveform is None:
            rate = frame_rate
            waveform = _silence(len(samples), round(seconds * rate))
            position = round((time - begin) * rate)
        expected = round((time - begin) * rate)
        if abs(expected - position) > LARGEST_JITTER * rate:
            position = expected
        first, last = max(position, 0), min(position + samples.shape[1], waveform.shape[1])
        if first < last:
            waveform[:, first:last] = samples[:, first - position : last - position]
        position += samples.shape[1]
        if position >= waveform.shape[1]:
            break
    return None if waveform is None else Sound(waveform, rate)


def _frames(container: InputContainer, stream: Any) -> Iterator[tuple[float, Tensor, int]]:
    """(time in seconds, [C, n] float32, samples per second) of each piece, all of one form."""
    from av.audio.resampler import AudioResampler

    resampler = None
    for frame in container.decode(stream):
        resampler = resampler or AudioResampler("fltp", frame.layout, frame.sample_rate)
        time = frame.time or 0.0
        for part in resampler.resample(frame):
            yield time, torch.from_numpy(part.to_ndarray()), part.sample_rate


def _silence(num_channels: int, num_samples: int) -> Tensor:
    check_size(4 * num_channels * num_samples, "the clip's sound", "give a smaller length")
    return torch.zeros(num_channels, num_samples)
