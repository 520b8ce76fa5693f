"""Locks of folders: one job at a time writes a run, a cache or the stages of a pipeline.

A lock is a file with the process and the host that hold it, so that file systems without flock have it too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import SoftFileLock, Timeout

from vdot_core.files import file_size, read_file
from vdot_core.text import shown

from .stopping import before_end

if TYPE_CHECKING:
    from ..distributed.world import World

logger = logging.getLogger("vdot")
LOCK = ".lock"
# Seconds that an ending job gets to release its folder to the next one.
GRACE_S = 5.0
MAX_LOCK_BYTES = 4096
POLL_S = 0.2


@contextmanager
def locked(folder: str | Path, key: str, *, name: str = LOCK, grace_s: float | None = None) -> Iterator[None]:
    """Hold the lock of a folder, which is created if need be.

    The lock of a process of this host that has ended is taken over.

    Args:
        folder: The folder that this process is going to write to.
        key: Setting that names the folder, for the error.
        name: File of the lock.
        grace_s: Seconds to wait for another process to release it, GRACE_S unless given; a longer wait is
            logged.

    Raises:
        ValueError: Another process holds it, or the folder cannot be written to.
    """
    folder = Path(folder)
    if os.path.lexists(folder / name):
        # A folder or a pipe is no lock; a link is none that this program made.
        file_size(folder / name)
    path, grace_s = folder / name, GRACE_S if grace_s is None else grace_s
    lock, before = SoftFileLock(str(path), mode=0o644), holder(path)
    if before and grace_s > GRACE_S:
        logger.info("%s is in use by %s: waiting until that ends", folder, before)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=grace_s, poll_interval=POLL_S)
    except Timeout:
        raise ValueError(
            f"{shown(folder, 120)} is in use by {holder(path)}; wait until that ends, or give another {key}. "
            f"If it no longer runs, remove {shown(path, 120)}"
        ) from None
    except OSError as error:
        reason = shown(error.strerror or error, 80)
        raise ValueError(f"{shown(folder)} cannot be written to ({reason}); give another {key}") from error
    try:
        if before:
            logger.warning("%s: %s, which had it locked, has ended; taking it over", folder, before)
        with _released_at_end(lock):
            yield
    finally:
        lock.release()


@contextmanager
def claimed(path: str | Path) -> Iterator[bool]:
    """Hold the right to make a file, whose folder exists: of several processes, one makes it.

    A claim is a lock next to the file. That of a process of this host that has ended is taken over.

    Yields:
        False where another process holds it.
    """
    path = Path(path)
    lock = SoftFileLock(str(path.with_name(f".{path.name}{LOCK}")), mode=0o644, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        with _released_at_end(lock):
            yield True
    finally:
        lock.release()


@contextmanager
def _released_at_end(lock: SoftFileLock) -> Iterator[None]:
    """Release a lock before a signal ends the process: a scheduler's next start may be on another host."""

    def release():
        # In a forked worker, or after a takeover, the file is not this process's.
        if lock.is_lock_held_by_us:
            Path(lock.lock_file).unlink(missing_ok=True)

    with before_end(release):
        yield


@contextmanager
def locked_by_all(folder: str | Path, key: str, world: World) -> Iterator[None]:
    """As `locked`, by the first of the processes of a run for all of them; every one gets its error."""
    refusal = None
    with ExitStack() as stack:
        if world.rank == 0:
            try:
                stack.enter_context(locked(folder, key))
            except ValueError as error:
                refusal = str(error)
        if refusal := world.gather(refusal)[0]:
            raise ValueError(refusal)
        yield


def is_held(path: Path) -> bool:
    """True if a process holds this lock; that of one that has ended is removed."""
    try:
        with SoftFileLock(str(path), timeout=0):
            return False
    except Timeout:
        return True


def holder(path: Path) -> str:
    """The process that a lock names, such as "process 81 on node3"; empty where there is no lock."""
    try:
        words = read_file(path, MAX_LOCK_BYTES).decode("utf-8", "replace").split()
    except ValueError:
        return "process ? on ?" if os.path.lexists(path) else ""
    process, host = [*words, "?", "?"][:2]
    # The rest of the second word tells containers apart.
    return f"process {shown(process, 20)} on {shown(host.partition('?')[0] or '?', 60)}"
