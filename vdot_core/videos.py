"""Opens video files that came from outside, and no other file or address that they may name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np

from .files import open_file
from .pictures import MAX_PIXELS, check_pixels
from .text import shown

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

Item = TypeVar("Item")
SAME_ASPECT = 0.01
"""Pixels whose sides differ by less count as square: encoders write such ratios to make up for rounding."""
MAX_ASPECT = 8.0
"""Width of a pixel over its height; the widest in use, half of SD's width at 16:9, is 2.9."""
RATES = 0.01, 1000.0
"""Frames per second that a video is read or written with."""

# FFmpeg picks a file's format by its content, whatever its name. Of its formats, these hold their frames in
# the file itself; playlists and session descriptions (ffconcat, HLS, DASH, SDP ..) open others.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf"),
    *("ogg", "mxf", "nut", "ivf", "obu", "av1", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "dv"),
    *("yuv4mpegpipe", "gif", "apng", "webp", "webp_pipe", "png_pipe", "jpeg_pipe", "bmp_pipe", "tiff_pipe"),
)


def decoding_fault(error: Exception) -> str:
    """Why a video cannot be decoded, without the number and the file's handle that PyAV's errors hold."""
    return shown(getattr(error, "strerror", None) or error)


@contextmanager
def open_video(file: str | Path | IO[bytes]) -> Iterator[InputContainer]:
    """Open a video file for reading with PyAV.

    Args:
        file: path, or a stream of the file's bytes.
    Yields:
        The container; nothing but the file is ever opened for it.

    Raises:
        ValueError: no file, but a pipe or a device; or a format of which FFmpeg would open other files;
            or frames of too many pixels.
        av.FFmpegError: no video that can be read.
    """
    import av

    # The demuxer is compared before it reads the header; the protocols are those of further files.
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
    opened = open_file(file) if isinstance(file, (str, Path)) else nullcontext(file)
    with opened as stream:
        try:
            container = av.open(stream, container_options=options)
        except av.error.ArgumentError as error:
            raise ValueError(
                "not a video of a known format; save it as mp4, mov, mkv, webm, avi or gif"
            ) from error
        with container:
            for video in container.streams.video:
                if video.codec_context is None:
                    raise ValueError("its video is of an unknown codec, or damaged; save it as H.264 in mp4")
                check_pixels(video.width, video.height)
                _square_size(video.width, video.height, video)
                video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a later frame may be larger
            yield container


def timed_frames(container: InputContainer, start: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
    """Frames of a container's first video with their times.

    Args:
        container: from `open_video`.
        start: in seconds from the first frame; reading begins at the key frame before it, where the format
            can seek.
    Yields:
        (seconds from the video's first frame, frame), in the order in which they are shown.

    Raises:
        ValueError: the file says nothing of the time of a frame.
        av.FFmpegError: it is damaged.
    """
    stream = container.streams.video[0]
    rate, first = float(stream.average_rate or 0), None
    if start > 0 and stream.start_time is not None and _seek(container, stream, start):
        first = float(stream.start_time * stream.time_base)
    for number, frame in enumerate(container.decode(stream)):
        if frame.time is None and not rate:
            raise ValueError(f"frame {number} has no time, and the video no frame rate; save it as mp4")
        time = frame.time if frame.time is not None else number / rate
        first = time if first is None else first
        yield time - first, frame


def _seek(container: InputContainer, stream: VideoStream, start: float) -> bool:
    """Move to the key frame before a time; False where the format cannot and is read from its start."""
    import av

    try:
        container.seek(int(start / stream.time_base) + stream.start_time, stream=stream, backward=True)
    except av.FFmpegError:
        container.seek(0)
        return False
    return True


def nearest_frames(
    frames: Iterable[tuple[float, Item]], rate: float, limit: int, start: float = 0.0
) -> Iterator[Item]:
    """For the moments start, start + 1/rate, ..: what is nearest in time.

    Args:
        frames: (seconds, item), ascending; the last one is shown for as long as the one before it.
        rate: moments per second.
        limit: most moments.
        start: the first moment, in seconds.
    Yields:
        An item for each moment up to the end of the last item; the same one again where it is nearest twice.
    """
    count, before, gap = 0, None, 0.0
    for time, item in frames:
        if before is not None:
            gap = time - before[0]
            while count < limit and start + count / rate < (before[0] + time) / 2:
                yield before[1]
                count += 1
        if count >= limit:
            return
        before = time, item
    is_first = start <= 0 and not count  # a video of one frame has it at its start
    while before is not None and count < limit and (is_first or start + count / rate < before[0] + gap / 2):
        yield before[1]
        count, is_first = count + 1, False


def upright(frame: VideoFrame, stream: VideoStream) -> np.ndarray:
    """[H, W, 3] uint16 of a frame, 65535 = white, turned and stretched as the file says it is to be shown.

    FFmpeg's conversion to eight bits repeats the halved colors of a video; to sixteen it interpolates them.

    Args:
        frame: from `timed_frames`.
        stream: its stream, which holds the aspect of its pixels.
    """
    width, height = _square_size(frame.width, frame.height, stream)
    size = {} if (width, height) == (frame.width, frame.height) else {"width": width, "height": height}
    scaling = size and size | {"interpolation": "BICUBIC"}
    if frame.format.name.startswith(("yuv", "nv", "p0")):
        pixels = frame.to_ndarray(format="gbrp16le", **scaling)
    else:
        pixels = frame.to_ndarray(format="rgb24", **scaling).astype(np.uint16) * 257
    return np.ascontiguousarray(np.rot90(pixels, _quarter_turns(frame)))


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height of `upright`'s pixels."""
    width, height = _square_size(frame.width, frame.height, stream)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def _quarter_turns(frame: VideoFrame) -> int:
    """Turns by 90 degrees, counterclockwise."""
    rotation = getattr(frame, "rotation", 0)
    # That of a matrix that turns nothing into anything is the least integer.
    return round(rotation / 90) % 4 if abs(rotation) <= 360 else 0


def _square_size(width: int, height: int, stream: VideoStream) -> tuple[int, int]:
    """The size at which a stream's pixels are square: one side is longer, so that no detail is lost.

    Raises:
        ValueError: the file claims pixels of an aspect that no video has, or too many.
    """
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        raise ValueError(
            f"its pixels are {aspect:.3g} times as wide as high, expected 1/{MAX_ASPECT:g} to "
            f"{MAX_ASPECT:g}; save it with square pixels"
        )
    if abs(aspect - 1) < SAME_ASPECT:
        return width, height
    size = (_even(width * aspect), height) if aspect > 1 else (width, _even(height / aspect))
    check_pixels(*size)
    return size


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """uint16 rounded to uint8."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
