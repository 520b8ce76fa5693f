"""Refuses work that exceeds the computer's memory, before allocation."""

from __future__ import annotations

from pathlib import Path

GB, GIB = 1e9, 2**30
# A computer that fills its memory to the last byte swaps, or ends the process.
USABLE = 0.9
RGB, MASK = 12, 4
"""Bytes of a pixel of float32 frames, and of a mask."""
CHUNK_PIXELS = 2**24
"""Pixels processed at a time, for videos of any size."""

_CONTAINER = Path("/sys/fs/cgroup")


def available_bytes() -> float:
    """Memory that can still be used: the computer's, or the container's where that has less."""
    return min(_machine_bytes(), _container_bytes())


def check_size(num_bytes: float, what: str, cure: str) -> None:
    """Refuse an allocation that is larger than the memory that is free.

    Args:
        num_bytes: most that it takes at one time.
        what: the subject of the sentence, such as "a video of 8192x8192 with 5 frames".
        cure: what to do, such as "give a smaller width or height".
    Raises:
        ValueError: gives both figures and the cure.
    """
    if num_bytes <= CHUNK_PIXELS:
        return  # the check would cost more than it saves
    free = USABLE * available_bytes()
    if num_bytes > free:
        raise ValueError(
            f"{what} needs {num_bytes / GB:.1f} GB of memory, expected at most the {free / GB:.1f} GB that "
            f"are free; {cure}"
        )


def chunk_length(pixels: int, longest: int) -> int:
    """Frames of this many pixels to process at a time: at least 1, at most `longest`."""
    return max(1, min(longest, CHUNK_PIXELS // max(1, pixels)))


def _machine_bytes() -> float:
    """Infinity where neither the system nor psutil, which comes with ComfyUI, says it."""
    try:
        rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * next(int(row[1]) for row in rows if row[0] == "MemAvailable:")
    except (OSError, ValueError, StopIteration):
        pass  # not Linux
    try:
        import psutil
    except ImportError:
        return float("inf")
    return psutil.virtual_memory().available


def _container_bytes() -> float:
    """Free memory within a container's limit; infinity outside of one."""
    try:
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        rows = (line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        # The file cache counts as used, but can be reclaimed.
        return limit - used + sum(int(size) for name, size in rows if name == "inactive_file")
    except (OSError, ValueError):
        return float("inf")
