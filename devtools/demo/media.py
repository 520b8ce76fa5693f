"""Looks into clips and pictures before they are sent, and reads back what came out."""

from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from devtools.errors import DevError


@dataclass(frozen=True)
class Clip:
    """What a video file holds: its size in pixels and the number of frames that can be decoded."""

    width: int
    height: int
    num_frames: int


def probe_video(path: Path, flag: str) -> Clip:
    """Decode a video once, to know that ComfyUI will be able to.

    Raises:
        DevError: it is no video, or has no frame that can be decoded.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DevError(f"{flag} {path}: the file has no video in it (only sound?)")
            width, height, num_frames = 0, 0, 0
            for frame in container.decode(video=0):
                width, height, num_frames = frame.width, frame.height, num_frames + 1
    except (av.FFmpegError, ValueError) as error:
        raise DevError(
            f"{flag} {path}: not a readable video ({error}); mp4, webm, mov and mkv work"
        ) from error
    if not num_frames:
        raise DevError(f"{flag} {path}: no frame of it can be decoded")
    return Clip(width, height, num_frames)


def probe_image(path: Path, flag: str) -> tuple[int, int]:
    """Decode a picture.

    Returns:
        Its width and height in pixels.

    Raises:
        DevError: it is no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DevError(f"{flag} {path}: not a readable picture; PNG, JPEG and WebP work") from error


def scaled_mask(mask: Path, size: tuple[int, int], folder: Path) -> Path:
    """A copy of a mask, stretched to a size: VDOT Mask wants mask and clip to have the same one."""
    scaled = folder / f"{mask.stem}_{size[0]}x{size[1]}.png"
    with Image.open(mask) as image:
        image.resize(size, Image.Resampling.NEAREST).save(scaled)
    return scaled


def read_frames(path: Path) -> list[Image.Image]:
    """Every frame of a video, as RGB pictures."""
    with av.open(str(path)) as container:
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
