"""Clips that are too large for memory, in files of a scratch folder.

Such a clip is an ordinary tensor whose values lie in a file: the system reads the part that is used, and
gives its memory back when others need it.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from .files import reason_of
from .memory import GB, RGB, available_bytes, check_size
from .text import counted

SHARE = 0.25
"""Of the free memory, what one clip may take: a task's unit and its result are about as large."""
SUFFIX = ".frames"


def new_frames(
    num_frames: int, width: int, height: int, scratch: Path | None, cure: str
) -> tuple[Tensor, list[str]]:
    """Allocate a clip, in memory or, where it takes too much of that, in a file.

    Args:
        num_frames, width, height: of the clip.
        scratch: folder of the file; None = in memory, or not at all. The file is gone with the tensor; on
            Windows, where a file in use cannot be deleted, it stays until the folder is cleared.
        cure: what to do, where there is no room.
    Returns:
        ([F, H, W, 3] float32 with any values; a note where it lies in a file).
    Raises:
        ValueError: neither memory nor disk has room, or the folder cannot be written.
    """
    shape, num_bytes = (num_frames, height, width, 3), num_frames * width * height * RGB
    what = f"a clip of {counted(num_frames, 'frame')} of {width}x{height}"
    if scratch is None or num_bytes <= SHARE * available_bytes():
        check_size(num_bytes, what, cure)
        return torch.empty(shape), []
    try:
        free = shutil.disk_usage(scratch).free
        if num_bytes > free / 2:
            raise ValueError(
                f"{what} needs {num_bytes / GB:.1f} GB, more than memory has; expected twice as much on the "
                f"disk of {scratch.name}, got {free / GB:.1f} GB; {cure}"
            )
        frames = _mapped(scratch, shape)
    except OSError as error:
        raise ValueError(f"{what} cannot be kept in {scratch.name}: {reason_of(error)}") from error
    return frames, [f"{num_bytes / GB:.1f} GB of frames lie in a temporary file, for want of memory"]


def is_mapped(frames: Tensor) -> bool:
    """True if the values lie in a file: such a clip takes no memory that others cannot have."""
    return bool(frames.untyped_storage().filename)


def _mapped(folder: Path, shape: tuple[int, ...]) -> Tensor:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=SUFFIX, delete=False) as file:
        path = Path(file.name)
    try:
        size = torch.Size(shape).numel()
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size * torch.float32.itemsize)
        return torch.from_file(str(path), shared=True, size=size, dtype=torch.float32).view(shape)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
