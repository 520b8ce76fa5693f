"""Streams of (name, tensor) between reading and writing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from ..files import open_file, scratch_file, sync
from .info import Entry

if TYPE_CHECKING:
    import numpy as np

Values = TypeVar("Values", torch.Tensor, "np.ndarray")
log = logging.getLogger("vdot")
_LARGE = 2**30  # bytes of a file that takes a while
_SAMPLE = 2**30  # bytes that are copied to measure the disk
_PART = 2**24


def unchanged(
    stream: Iterator[tuple[str, torch.Tensor]], entries: Mapping[str, Entry]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and refuse at the end if a source file was written to meanwhile."""
    yield from stream
    require_unchanged(entries)


def require_unchanged(entries: Mapping[str, Entry]) -> None:
    """ValueError if a file of these parameters was written to, cut or exchanged since it was opened."""
    for file in {entry.file.path: entry.file for entry in entries.values()}.values():
        file.require_unchanged()


def reported(
    stream: Iterator[tuple[str, Values]], total: int, verb: str = "written"
) -> Iterator[tuple[str, Values]]:
    """Pass tensors or arrays through, and log every tenth of the bytes of a file that takes a while."""
    num_bytes, next_report = 0, total // 10
    for name, tensor in stream:
        num_bytes += tensor.nbytes
        yield name, tensor
        del tensor
        if num_bytes >= next_report and total > _LARGE:
            log.info("%s %.1f of %.1f GB", verb, num_bytes / 1e9, total / 1e9)
            next_report += total // 10


@contextmanager
def compared_with_a_copy(sources: Sequence[Path], target: Path) -> Iterator[None]:
    """Log how long a block takes, and how long a copy of its source files would, where they are large.

    The copy's time is extrapolated from the first GB of the first file, copied next to `target` and removed.
    """
    num_bytes = sum(path.stat().st_size for path in sources)
    if num_bytes < _LARGE:
        yield
        return
    copy_seconds = _seconds_per_byte(sources[0], target) * num_bytes
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    log.info("%.1f GB in %.0f s; copying the file takes %.0f s", num_bytes / 1e9, seconds, copy_seconds)


def _seconds_per_byte(source: Path, target: Path) -> float:
    start, num_bytes = time.monotonic(), 0
    with scratch_file(target) as sample, open_file(source) as read, sample.open("wb") as copy:
        while num_bytes < _SAMPLE and (part := read.read(_PART)):
            num_bytes += copy.write(part)
        copy.flush()
        sync(sample)
    return (time.monotonic() - start) / num_bytes
