"""Reading videos and pictures at the model's frame rate and size.

Letters: F pixel frames, H W pixels, C channels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import torch
from torch import Tensor

from vdot_core.files import open_file
from vdot_core.memory import GIB
from vdot_core.pictures import read_picture, without_alpha
from vdot_core.text import shown
from vdot_core.vcu import cover
from vdot_core.vcu.scaling import FRAMES_PER_CHUNK, resample
from vdot_core.videos import decoding_fault, eight_bits, nearest_frames, open_video, timed_frames, upright

from .bad_rows import BadRowError

PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")
# A small file can decode to any number of pixels; 81 frames of 3840 x 2160 are 2 GB.
MAX_CLIP_BYTES = 8 * GIB
# Files are read as a whole. 81 frames of 3840 x 2160 without any compression are 2 GB.
MAX_FILE_BYTES = 4 * GIB
BLOCK_BYTES = 2**22
NOT_THERE = (404, 410)  # HTTP's status


@dataclass(frozen=True)
class Media:
    """A video or picture file, by its address or by its bytes.

    Attributes:
        name: Address, or name within an archive; its ending says what it is.
        data: The bytes of a file in an archive.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The bytes; BadRowError where there are none."""
        if self.data is not None:
            return self.data
        try:
            return read_bytes(self.name)
        except FileNotFoundError as error:
            raise BadRowError("missing", f"{shown(self.name)} does not exist") from error
        except OSError as error:
            raise BadRowError("unreadable", f"{shown(self.name)} cannot be read: {error}") from error


def read_bytes(path: str) -> bytes:
    """The bytes of a local or remote file of at most `MAX_FILE_BYTES`.

    Raises:
        OSError: It cannot be read, for any backend, or is larger; FileNotFoundError if it does not exist.
    """
    try:
        with open_stream(path) as stream:
            return read_all(stream)
    except (ImportError, MemoryError):
        # A backend that is not installed would skip every row, and so would a lack of memory.
        raise
    except FileNotFoundError as error:
        # fsspec says so of a server that does not answer, too.
        cause, status = error.__cause__, getattr(error.__cause__, "status", NOT_THERE[0])
        offline = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        if not offline and status in NOT_THERE:
            raise
        raise OSError(f"{type(cause).__name__}: {shown(cause)}") from error
    except TooLargeError:
        raise
    except Exception as error:
        # Object stores raise their own errors, such as aiohttp's ClientPayloadError or fsspec's timeout.
        raise OSError(f"{type(error).__name__}: {shown(error)}") from error


class TooLargeError(OSError):
    """A file has more than `MAX_FILE_BYTES`."""

    def __init__(self, size: str) -> None:
        super().__init__(
            f"it has {size} bytes, expected at most {MAX_FILE_BYTES}; cut it, or give the right file"
        )


def check_size(size: int | None) -> None:
    """TooLargeError where a file's known size is beyond what is read."""
    if size is not None and size > MAX_FILE_BYTES:
        raise TooLargeError(str(size))


def read_all(stream: IO[bytes]) -> bytes:
    """A stream's content; of some, such as a compressed one, the size is known only at their end."""
    try:
        check_size(os.fstat(stream.fileno()).st_size)
    except (OSError, AttributeError) as error:  # no local file
        if isinstance(error, TooLargeError):
            raise
        check_size(getattr(stream, "size", None))
    content = io.BytesIO()
    while block := stream.read(BLOCK_BYTES):
        if content.tell() + len(block) > MAX_FILE_BYTES:
            raise TooLargeError("more")
        content.write(block)
    return content.getvalue()


def local_path(path: str) -> str | None:
    """Path of a local file's path or address; None of a remote one, or one in an archive."""
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.utils import get_protocol

    if "::" in path or get_protocol(path) not in LocalFileSystem.protocol:
        return None
    return LocalFileSystem._strip_protocol(path)


def is_folder(path: str) -> bool:
    """True if a local path or address is a folder's."""
    local = local_path(path)
    return local is not None and os.path.isdir(local)


@contextmanager
def open_stream(path: str) -> Iterator[IO[bytes]]:
    """Open a local or remote file; a local one must be a regular file, for a pipe or a device never ends.

    Raises:
        OSError, or an error of the path's backend: it cannot be opened.
    """
    import fsspec

    local = local_path(path)
    if local is None:
        # Of a chain of files, such as one in an archive, this object holds the outer ones open.
        with fsspec.open(path, "rb") as stream:
            yield stream
        return
    if not os.path.exists(local):
        raise FileNotFoundError(f"{shown(path)} does not exist")
    try:
        opened = open_file(local)
    except ValueError as error:
        raise OSError(str(error)) from error
    with opened as stream:
        yield stream


def read_clip(media: Media, frame_rate: float, max_frames: int) -> Tensor:
    """Read a video, or a picture as a clip of one frame.

    Args:
        media: The file.
        frame_rate: Frames per second of the result: at each moment the frame that is nearest in time.
        max_frames: Stop there.

    Returns:
        [F, H, W, C] uint8; C is 3, or 4 for a picture with alpha.

    Raises:
        BadRowError: It is missing, or it is not a video or picture that can be decoded to its end.
    """
    data = media.read()
    if media.name.lower().endswith(PICTURES):
        return torch.from_numpy(_picture(data, media.name))[None]
    import av

    try:
        with open_video(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise BadRowError("unreadable", f"{shown(media.name)} holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames = nearest_frames(timed_frames(container), frame_rate, max_frames)
            arrays = list(_bounded((eight_bits(upright(frame, stream)) for frame in frames), media.name))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        # PyAV's own MemoryError is one of its errors, too.
        if isinstance(error, (BadRowError, MemoryError)):
            raise
        reason = f"{shown(media.name)} cannot be decoded: {decoding_fault(error)}"
        raise BadRowError("unreadable", reason) from error
    if not arrays:
        raise BadRowError("unreadable", f"{shown(media.name)} holds no frame")
    if len({array.shape for array in arrays}) > 1:
        raise BadRowError("misshapen", f"{shown(media.name)} changes its size on the way")
    return torch.from_numpy(np.stack(arrays))


def read_mask(media: Media, frame_rate: float, max_frames: int) -> Tensor:
    """`read_clip` of a mask: [F, H, W, 3]; BadRowError also where only its alpha shows a shape."""
    mask = read_clip(media, frame_rate, max_frames).numpy()
    try:
        return torch.from_numpy(without_alpha(mask))
    except ValueError as error:
        raise BadRowError("wrong", f"{shown(media.name)}: {error}") from error


def _picture(data: bytes, name: str) -> np.ndarray:
    """[H, W, 3 or 4] uint8."""
    try:
        return read_picture(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadRowError("unreadable", f"{shown(name)} cannot be decoded: {error}") from error


def _bounded(arrays: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """The same arrays; BadRowError where they fill the memory."""
    total = 0
    for array in arrays:
        total += array.nbytes
        if total > MAX_CLIP_BYTES:
            raise BadRowError(
                "unreadable",
                f"{shown(name)} decodes to more than {MAX_CLIP_BYTES / GIB:.3g} GiB ({array.shape[1]} x "
                f"{array.shape[0]} pixels a frame); scale it down",
            )
        yield array


def own_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height in multiples of 16 near a clip's aspect, within it and within a number of pixels.

    Args:
        width, height: Of the clip.
        max_pixels: Largest width * height.

    Returns:
        The size; of the candidates the one nearest in aspect, weighed against the pixels it loses.
    """
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    floors = [max(16, int(side * scale + 1e-6) // 16 * 16) for side in (width, height)]
    choices = [
        (floors[0] - 16 * a, floors[1] - 16 * b)
        for a in range(3)
        for b in range(3)
        if floors[0] > 16 * a and floors[1] > 16 * b
    ]
    # The loss: the part cut off to fit the aspect, and the pixels given up.
    aspect, area = np.log(width / height), floors[0] * floors[1]
    return min(choices, key=lambda c: abs(np.log(c[0] / c[1]) - aspect) + 0.5 * (1 - c[0] * c[1] / area))


def fit(clip: Tensor, width: int, height: int, resize: str) -> Tensor:
    """Bring a clip to a size.

    Args:
        clip: [F, H, W, C] uint8.
        width, height: Size of the result.
        resize: 'cover' (scaled with its aspect, center cut) or 'stretch'.

    Returns:
        [F, height, width, C] float in [0, 1].
    """
    parts = []
    for chunk in clip.split(FRAMES_PER_CHUNK):
        part = chunk.float() / 255
        if resize == "cover":
            part = cover(part, width, height)
        elif part.shape[1:3] != (height, width):
            part = resample(part, width, height)
        parts.append(part)
    return torch.cat(parts)
