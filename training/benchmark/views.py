"""Copies of videos and pictures that a browser can show, in the folder of a page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

from vdot_core.files import atomic_write, remove_abandoned, sha256_of
from vdot_core.videos import open_video

from ..data.bad_rows import BadRowError
from ..data.video_files import PICTURES, Media, read_clip
from ..preparation.clip_files import to_bytes, write_clip

CRF = 12
PLAYED = {"h264": ("Baseline", "Constrained Baseline", "Main", "High"), "vp8": None, "vp9": None, "av1": None}


def plays(path: Path) -> bool:
    """True if browsers play a video: a common codec, 8 bits, 4:2:0."""
    import av

    try:
        with open_video(path) as container:
            stream = container.streams.video[0]
            profiles = PLAYED.get(stream.codec_context.name, ())
            known = profiles is None or stream.codec_context.profile in profiles
            return known and stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p")
    except (av.error.FFmpegError, ValueError, IndexError, OSError):
        return False


def place(source: Path, target: Path) -> None:
    """Link or copy a file, so that target has its content; its folder is created."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and (os.path.samefile(source, target) or sha256_of(source) == sha256_of(target)):
        return
    remove_abandoned(target)
    with atomic_write(target) as partial:
        partial.unlink()
        try:
            os.link(source, partial)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, partial)


def show(source: Path, target: Path, rate: float, max_frames: int) -> Path | None:
    """A file for a page.

    Args:
        source: A video or picture.
        target: Its place without ending; a file that is there from the same source stays.
        rate, max_frames: Of a video that has to be coded again.

    Returns:
        The file, with the ending that fits; None where it cannot be read.
    """
    if source.suffix.lower() in PICTURES:
        target = target.with_name(f"{target.name}{source.suffix.lower()}")
        place(source, target)
        return target
    target = target.with_name(f"{target.name}.mp4")
    if plays(source):
        place(source, target)
        return target
    mark = sha256_of(source)
    if _comment(target) == mark:
        return target
    try:
        frames = read_clip(Media(str(source)), rate, max_frames)[..., :3]
    except BadRowError:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Players need even sides.
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    write_clip(target, (to_bytes(frame.float() / 255) for frame in frames), rate, CRF, comment=mark)
    return target


def _comment(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with open_video(path) as container:
            return container.metadata.get("comment")
    except ValueError:
        return None


def link(path: Path, page: Path) -> str:
    """The address of a file on a page in a folder above it."""
    return quote(path.relative_to(page.parent).as_posix())
