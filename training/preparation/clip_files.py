"""Reading and writing the clips of a preparation.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdot_core.files import atomic_write, remove_abandoned
from vdot_core.text import shown
from vdot_core.videos import decoding_fault, eight_bits, nearest_frames, open_video, timed_frames, upright

from ..data.bad_rows import BadRowError
from ..data.video_files import Media, read_clip

LOSSLESS = 0
# On smaller pictures x264's macroblock tree gives other bytes now and then (of 48 x 32, 1 file in 300).
MIN_TREE_SIDE = 64


def decoded(path: str | Path, rate: float, start: float, count: int) -> Iterator[np.ndarray]:
    """Frames of a source at a fixed rate, decoded one by one.

    Args:
        path: A local video.
        rate: Frames per second.
        start: Seconds from its first frame.
        count: Number of frames.
    Yields:
        [H, W, 3] uint8, upright and with square pixels.

    Raises:
        BadRowError: It cannot be decoded.
    """
    import av

    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise BadRowError("unreadable", f"{shown(path)} holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames = nearest_frames(timed_frames(container, start), rate, count, start)
            before, pixels = None, None
            for frame in frames:
                if frame is not before:
                    before, pixels = frame, eight_bits(upright(frame, stream))
                yield pixels
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, (BadRowError, MemoryError)):
            raise
        raise BadRowError(
            "unreadable", f"{shown(path)} cannot be decoded: {decoding_fault(error)}"
        ) from error


def write_clip(
    path: Path, frames: Iterable[np.ndarray], rate: float, crf: int, *, comment: str | None = None
) -> int:
    """Write a clip in one step; the same frames give the same bytes.

    Args:
        path: An .mp4; its folder exists.
        frames: [H, W, 3] uint8, sides even.
        rate: Frames per second.
        crf: H.264's quality; 0 is lossless (of black and white, exactly).
        comment: A line for the file's metadata.

    Returns:
        The number of frames.
    """
    import av

    remove_abandoned(path)
    count = 0
    # Black and white codes well at any effort.
    quality = {"preset": "medium", "crf": str(crf)} if crf else {"preset": "ultrafast", "qp": "0"}
    options = {"bf": "0", **quality}
    with atomic_write(path) as partial:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(rate).limit_denominator(1001), options=options
            )
            # More threads give other bytes.
            stream.codec_context.thread_count = 1
            if comment is not None:
                container.metadata["comment"] = comment
            for pixels in frames:
                if not count:
                    stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
                    if min(pixels.shape[:2]) < MIN_TREE_SIDE:
                        stream.codec_context.options |= {"mbtree": "0"}
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                count += 1
            container.mux(stream.encode() if count else [])
    return count


def write_frames(path: Path, frames: Tensor, rate: float, crf: int, *, comment: str | None = None) -> None:
    """Write [F, H, W, 3] float in [0, 1] as `write_clip`."""
    write_clip(path, (to_bytes(frame) for frame in frames), rate, crf, comment=comment)


def write_mask(path: Path, mask: Tensor, rate: float) -> None:
    """Write a mask [F, H, W] of 0 and 1, white = generate, without loss."""
    write_clip(path, (to_bytes(frame)[..., None].repeat(3, -1) for frame in mask), rate, LOSSLESS)


def write_picture(path: Path, picture: Tensor) -> None:
    """Write [H, W, 3 or 4] float in [0, 1] as PNG, in one step."""
    from PIL import Image

    remove_abandoned(path)
    with atomic_write(path) as partial:
        Image.fromarray(to_bytes(picture)).save(partial, format="PNG")


def to_bytes(values: Tensor) -> np.ndarray:
    """Float in [0, 1] as uint8."""
    return (values.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def load(path: str | Path, rate: float, count: int) -> Tensor:
    """A written clip: [F, H, W, 3] float in [0, 1]."""
    return read_clip(Media(str(path)), rate, count)[..., :3].float() / 255
