"""Inspects, cuts and fits clips and pictures before they are uploaded, and decodes results."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image

from devtools.errors import DevError, UsageError
from vdot_core.pictures import open_picture, read_picture, without_alpha
from vdot_core.videos import open_video, shown_size

ANIMATED = {"GIF", "PNG", "WEBP"}
DEPTH_SIDE = 256  # pixels: enough to tell colors from gray
FRAME_RATE = 16  # the model's, for files that do not say theirs


@dataclass(frozen=True)
class Clip:
    """A video's or picture's displayed size in pixels, and its number of readable frames."""

    width: int
    height: int
    num_frames: int
    is_picture: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def probe(path: Path, name: str) -> Clip:
    """Decode a picture or a video, whichever it is.

    Args:
        path: the file; a moving GIF, PNG or WebP counts as a video.
        name: its name in messages.

    Raises:
        DevError: it is neither.
    """
    try:
        with open_picture(path) as image:
            is_picture = image.format not in ANIMATED or not getattr(image, "is_animated", False)
    except OSError:
        is_picture = False
    except ValueError as error:
        raise DevError(f"{name} {path}: {error}") from error
    return Clip(*probe_image(path, name), 1, is_picture=True) if is_picture else probe_video(path, name)


def probe_video(path: Path, flag: str) -> Clip:
    """Decode a video once, to check that ComfyUI can.

    Raises:
        DevError: it is no video, or has no frame that can be decoded.
    """
    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise DevError(f"{flag} {path}: the file has no video in it (only sound?)")
            width, height, num_frames = 0, 0, 0
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                width, height, num_frames = *shown_size(frame, stream), num_frames + 1
    except (av.FFmpegError, ValueError) as error:
        raise DevError(
            f"{flag} {path}: not a readable video ({error}); mp4, webm, mov and mkv work"
        ) from error
    if not num_frames:
        raise DevError(f"{flag} {path}: no frame of it can be decoded")
    return Clip(width, height, num_frames)


def require_depth(path: Path, flag: str, num_frames: int) -> None:
    """Refuse a video in colors where a depth clip is needed, by the rule of VDOT Depth on small frames.

    Raises:
        UsageError: its first frames are no depth.
    """
    import torch  # slow, and only this needs it

    from vdot_core.signals.depth import single_channel

    with open_video(path) as container:
        frames = [
            frame.reformat(
                min(frame.width, DEPTH_SIDE), min(frame.height, DEPTH_SIDE), "rgb24", interpolation="AREA"
            )
            for frame in islice(container.decode(video=0), num_frames)
        ]
    try:
        single_channel(torch.from_numpy(np.stack([frame.to_ndarray() for frame in frames])) / 255)
    except ValueError as error:
        raise UsageError(
            f"{flag} {path}: {error}; for an ordinary clip choose another task, as in --task gray"
        ) from error


def probe_image(path: Path, flag: str) -> tuple[int, int]:
    """Decode a picture.

    Returns:
        Its width and height in pixels.

    Raises:
        DevError: it is no picture.
    """
    try:
        height, width = read_picture(path).shape[:2]
        return width, height
    except ValueError as error:
        raise DevError(f"{flag} {path}: {error}") from error
    except OSError as error:
        raise DevError(f"{flag} {path}: not a readable picture; PNG, JPEG and WebP work") from error


def scaled_mask(mask: Path, size: tuple[int, int], folder: Path) -> Path:
    """A copy of a mask, stretched to a size: VDOT Mask wants mask and clip to have the same one."""
    scaled = folder / f"{mask.stem}_{size[0]}x{size[1]}.png"
    Image.fromarray(read_picture(mask)).resize(size, Image.Resampling.NEAREST).save(scaled)
    return scaled


def cut_video(
    source: Path, target: Path, num_frames: int, *, start: int = 0, size: tuple[int, int] | None = None
) -> None:
    """Write a part of a video without loss, frame by frame, with little memory.

    Args:
        source: any readable video.
        target: an .mp4 to write; it has the source's frame rate and no sound.
        num_frames: how many frames to write.
        start: the first of them.
        size: width and height to stretch to, for masks: no value is mixed with another; None = as it is.
    """
    with open_video(source) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(FRAME_RATE)
        frames = islice(container.decode(stream), start, start + num_frames)
        # A mask that is stretched to its clip's shown size has square pixels.
        aspect = Fraction(1) if size else stream.sample_aspect_ratio or Fraction(1)
        first = next(frames)
        if _quarter_turns(first) % 2:
            aspect = 1 / aspect
        fitted = (_fitted(frame, size) for frame in chain([first], frames))
        _write_lossless(fitted, target, rate, stream.codec_context, aspect)


def still_video(picture: Path, target: Path, num_frames: int, size: tuple[int, int]) -> None:
    """Write a mask that is a picture as a video .mp4 that shows it in every frame, stretched to a size."""
    try:
        pixels = without_alpha(read_picture(picture))
    except ValueError as error:
        raise UsageError(f"{picture}: {error}") from error
    image = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    frames = (av.VideoFrame.from_image(image) for _ in range(num_frames))
    _write_lossless(frames, target, Fraction(FRAME_RATE))


def _write_lossless(
    frames: Iterable[av.VideoFrame],
    target: Path,
    rate: Fraction,
    tags: av.VideoCodecContext | None = None,
    aspect: Fraction = Fraction(1),
) -> None:
    """Write frames in order, in their own pixel format where a codec has it; `aspect` is a pixel's."""
    with av.open(str(target), "w") as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                codec, pixel_format = _lossless_codec(frame)
                options = {} if codec == "ffv1" else {"qp": "0", "preset": "veryfast"}
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixel_format
                stream.codec_context.sample_aspect_ratio = aspect
                if tags is not None and pixel_format == frame.format.name:
                    for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
                        setattr(stream.codec_context, tag, getattr(tags, tag))
            if frame.format.name != stream.pix_fmt:
                frame = _to_rgb(frame)
            frame.pts, frame.time_base, frame.pict_type = index, 1 / rate, PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _lossless_codec(frame: av.VideoFrame) -> tuple[str, str]:
    """Codec and pixel format for frames like this one."""
    kind = frame.format.name
    odd = frame.width % 2 or frame.height % 2  # where colors are halved, H.264 takes even sizes alone
    for codec in ("ffv1",) if odd else ("libx264", "ffv1"):
        if kind in {pixel_format.name for pixel_format in av.Codec(codec, "w").video_formats}:
            return codec, kind
    return "libx264rgb", "rgb24"


def _fitted(frame: av.VideoFrame, size: tuple[int, int] | None) -> av.VideoFrame:
    """A frame as it is shown, stretched to a size."""
    turns = _quarter_turns(frame)
    if turns:
        pixels = np.rot90(_to_rgb(frame).to_ndarray(), turns)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    if size in (None, (frame.width, frame.height)):
        return frame
    return frame.reformat(*size, format="rgb24", interpolation="POINT")


def _to_rgb(frame: av.VideoFrame) -> av.VideoFrame:
    """Eight bits of RGB by way of sixteen: the short way repeats the halved colors of a video unsmoothed."""
    return frame.reformat(format="gbrp16le").reformat(format="rgb24")


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Number of turns by 90 degrees that ComfyUI applies to a frame: phones store rotation as metadata."""
    return round(frame.rotation // 90) % 4


def read_frames(path: Path) -> list[Image.Image]:
    """Every frame of a video, as RGB pictures."""
    with open_video(path) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def fitting_size(clip: Clip, area: int) -> tuple[int, int]:
    """Width and height of a clip's shape with about `area` pixels, both multiples of 16.

    The closest shape wins among the sizes whose area is within a factor of 1.5.
    """
    ratio = clip.width / clip.height
    sides = range(16, 16 * 64 + 1, 16)
    fitting = [(w, h) for w in sides for h in sides if area / 1.5 <= w * h <= area * 1.5]
    return min(fitting, key=lambda size: (abs(size[0] / size[1] / ratio - 1), abs(size[0] * size[1] - area)))


def spread(num_frames: int, num_columns: int) -> list[int]:
    """Frame numbers from first to last, evenly spread and without repeats."""
    count = min(num_frames, num_columns)
    if count == 1:
        return [0]
    return [round(i * (num_frames - 1) / (count - 1)) for i in range(count)]
