"""Opens video files that came from outside, and no other file or address that they may name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .files import open_file
from .pictures import MAX_PIXELS, check_pixels

if TYPE_CHECKING:
    from av.container import InputContainer

# FFmpeg picks a file's format by its content, whatever its name. Of its formats, these hold their frames in
# the file itself; playlists and session descriptions (ffconcat, HLS, DASH, SDP ..) open others.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf"),
    *("ogg", "mxf", "nut", "ivf", "obu", "av1", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "dv"),
    *("yuv4mpegpipe", "gif", "apng", "webp", "webp_pipe", "png_pipe", "jpeg_pipe", "bmp_pipe", "tiff_pipe"),
)


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
                video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a later frame may be larger
            yield container
