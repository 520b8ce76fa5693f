"""Clips that are too large for memory, in files of a scratch folder.

Such a clip is an ordinary tensor whose values lie in a file: the system reads the part that is used, and
gives its memory back when others need it.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

from .files import reason_of
from .memory import GB, RGB, available_bytes, check_size
from .text import counted

SHARE = 0.25
"""Of the free memory, what one clip may take: a task's unit and its result are about as large."""
IN_MEMORY = 2**30
"""Most bytes of a clip in memory even where more is free, so that memory does not grow with a clip's length.
Not on Windows, where files of the scratch folder stay until it is cleared."""
SUFFIX = ".frames"
PART = 2**18
"""Values converted or searched at a time, or those of a frame."""

_log = logging.getLogger("vdot")
_folder: ContextVar[Callable[[], Path] | None] = ContextVar("vdot_scratch", default=None)


@contextlib.contextmanager
def spilling(folder: Callable[[], Path]) -> Iterator[None]:
    """Large clips that are computed in the block lie in files of a folder, see `empty`."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def empty(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Allocate float32 with any values; in a file where it is large and `spilling` names a folder."""
    num_bytes, folder = torch.Size(shape).numel() * torch.float32.itemsize, _folder.get()
    if folder is None or torch.device(device).type != "cpu" or not _is_large(num_bytes):
        return torch.empty(shape, device=device)
    try:
        place = folder()
        if num_bytes <= shutil.disk_usage(place).free / 2:
            return _mapped(place, tuple(shape))
    except OSError as error:
        _log.debug("a clip stays in memory: %s", reason_of(error))
    return torch.empty(shape)


def converted(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Values [F, ..] by a function of some frames, as float32; in a file where `empty` puts them."""
    if values.requires_grad or values.ndim < 2:
        return function(values)
    out = empty(values.shape, values.device)
    for place, part in zip(_parts(out), _parts(values), strict=True):
        place.copy_(function(part))
    return out


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Clips or masks [F, ..] one behind the other; in a file where `empty` puts them."""
    if any(part.dtype != torch.float32 or part.requires_grad for part in parts):
        return torch.cat(list(parts))
    shape = sum(map(len, parts)), *parts[0].shape[1:]
    return torch.cat(list(parts), out=empty(shape, parts[0].device))


def extremes(values: Tensor) -> tuple[float, float]:
    """Smallest and largest of values [F, ..]; NaN where one is. At once, torch would copy a strided clip."""
    ends = torch.stack([torch.stack(torch.aminmax(part)) for part in _parts(values.detach())])
    return float(ends.amin()), float(ends.amax())


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    """A few frames at a time."""
    if values.ndim < 2 or values.numel() <= PART:
        return (values,)
    return values.split(max(1, PART * len(values) // values.numel()))


def _is_large(num_bytes: int) -> bool:
    most = SHARE * available_bytes()
    return num_bytes > (most if os.name == "nt" else min(most, IN_MEMORY))


def new_frames(
    num_frames: int, width: int, height: int, scratch: Path | None, cure: str
) -> tuple[Tensor, list[str]]:
    """Allocate a clip, in memory or, where it takes much of that, in a file.

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
    if scratch is None or not _is_large(num_bytes):
        check_size(num_bytes, what, cure)
        return torch.empty(shape), []
    try:
        free = shutil.disk_usage(scratch).free
        if num_bytes > free / 2:
            if num_bytes <= SHARE * available_bytes():
                return torch.empty(shape), []
            raise ValueError(
                f"{what} needs {num_bytes / GB:.1f} GB, more than memory has; expected twice as much on the "
                f"disk of {scratch.name}, got {free / GB:.1f} GB; {cure}"
            )
        frames = _mapped(scratch, shape)
    except OSError as error:
        raise ValueError(f"{what} cannot be kept in {scratch.name}: {reason_of(error)}") from error
    return frames, [f"{num_bytes / GB:.1f} GB of frames lie in a temporary file, to spare memory"]


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
