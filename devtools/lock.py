"""A lock on a folder: one dev.py at a time changes it, the next one waits and prints a message.

The operating system holds the lock on an open file until the last process that has the file open ends. So a
killed run leaves no stale lock, and a pip that outlives it (it gets the file too) still keeps others out.
"""

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from devtools.errors import DevError
from devtools.paths import printable, writing_to

LOCK = "vdot.lock"
POLL_SECONDS = 0.25
OWN_TEXT = re.compile(r"(process \d+ on [^\n]*\n?)?")
MAX_LINE = 500
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
# Windows locks bytes and then refuses to read them: this one is far behind the text.
WINDOWS_BYTE = 1 << 30


@contextmanager
def locked(folder: Path, variable: str, say: Callable[[str], None]) -> Iterator[TextIO | None]:
    """Hold the lock of a folder, which is created if need be.

    Args:
        folder: the folder that is going to be changed.
        variable: the environment variable that puts it elsewhere, for the error.
        say: called with one line if another process holds the lock.

    Yields:
        The open lock file, to be inherited by child processes that change the folder; None where the folder
        cannot be written to, so that nothing can be changed.

    Raises:
        DevError: the folder cannot be made, its file system has no locks, or something else is in the lock's
            place.
    """
    with writing_to(folder, variable):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = _acquire(folder / LOCK, say)
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            file = None  # a complete environment can be used; a change fails with its own message
    try:
        yield file
    finally:
        if file:
            file.close()


def _acquire(path: Path, say: Callable[[str], None]) -> TextIO:
    announced = False
    while True:
        file = _open(path)
        if _try_lock(file):
            if _is_still(path, file):
                _require_own(path, file)
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                file.flush()
                return file
        elif not announced:
            file.seek(0)
            line = file.readline(MAX_LINE)
            holder = printable(line.strip()) or "another process"
            say(f"another dev.py is setting up {path.parent} ({holder}): waiting for it")
            announced = True
        file.close()
        time.sleep(POLL_SECONDS)


def _open(path: Path) -> TextIO:
    """Open or create the lock file; a link is not followed, and a pipe or device is not opened."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise _foreign(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    # It may be exchanged meanwhile; Windows has neither flag.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _foreign(path)
        return os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace")
    except BaseException:
        os.close(descriptor)
        raise


def _require_own(path: Path, file: TextIO) -> None:
    """Refuse a file with any other text than that of a lock; it would be overwritten."""
    file.seek(0)
    text = file.read(MAX_LINE + 1)
    if len(text) > MAX_LINE or not OWN_TEXT.fullmatch(text):
        file.close()
        raise _foreign(path)


def _foreign(path: Path) -> DevError:
    return DevError(f"{path} is not a lock that dev.py wrote: move it away, or use another folder")


def _is_still(path: Path, file: TextIO) -> bool:
    """True if the locked file is still the one at this path, not deleted meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return False


def _try_lock(file: TextIO) -> bool:
    if os.name == "nt":
        import msvcrt

        file.seek(WINDOWS_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
