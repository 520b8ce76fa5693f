"""Opening files that came from outside, and writing files that are complete or absent."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import platform
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .text import shown

# A pipe, or a device that waits for someone, must not block the call; Windows has neither flag.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_HASHED_BYTES = 1 << 20  # at a time
_CURES = {
    errno.ENOSPC: "make room, or give another folder",
    errno.EDQUOT: "make room, or give another folder",
    errno.ENAMETOOLONG: "give a shorter name",
}


def file_size(path: str | Path) -> int:
    """Number of bytes of a regular file, or of the file that a link points to.

    Raises:
        ValueError: it is missing or cannot be accessed, or is a folder, a pipe, a socket or a device.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ValueError(f"{shown(path)} is not a file ({_reason(error)}); check the path") from error
    return _regular_size(path, status)


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; nothing else is opened, and the call never blocks.

    Raises:
        ValueError: as for `file_size`; so do reads where the disk reports an error.
    """
    file_size(path)  # opening some devices has an effect, so they are refused by name
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise ValueError(f"{shown(path)} cannot be read ({_reason(error)}); check the path") from error
    try:
        _regular_size(path, os.fstat(descriptor))  # it may have been exchanged meanwhile
        return io.BufferedReader(_Content(descriptor, path))
    except BaseException:
        os.close(descriptor)
        raise


class _Content(io.FileIO):
    """A file's bytes, whose errors name it: the system's, of a file that is open, do not."""

    def __init__(self, descriptor: int, path: str | Path) -> None:
        super().__init__(descriptor, "rb")
        self._path = path

    def readinto(self, buffer) -> int | None:
        with self._named():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._named():
            return super().readall()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{shown(self._path)} cannot be read ({_reason(error)}); check the disk"
            ) from error


def read_file(path: str | Path, max_bytes: int) -> bytes:
    """Content of a regular file.

    Args:
        path: the file.
        max_bytes: largest size that is read.
    Raises:
        ValueError: as for `file_size`, or the file is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ValueError(
                f"{shown(path)} has {size} bytes, expected at most {max_bytes}; give the right file"
            )
        # A read sets aside what it asks for, which may be far more than the file has.
        return file.read(size)


def read_at(path: str | Path, offset: int, num_bytes: int) -> mmap.mmap:
    """Read a part of a regular file.

    Args:
        path: the file.
        offset: where the part begins.
        num_bytes: its size, at least 1.
    Returns:
        Memory outside the heap, so that it returns to the system as soon as it is freed.
    Raises:
        ValueError: as for `file_size`, the file ends before that, or the disk reports an error.
    """
    buffer = mmap.mmap(-1, num_bytes)
    with open_file(path) as file:
        file.seek(offset)
        complete = file.readinto(buffer) == num_bytes
    if not complete:
        raise ValueError(f"{shown(path)} changed while it was being read; try again")
    return buffer


def version_of(path: str | Path) -> tuple[int, ...]:
    """Numbers that change when a file is exchanged, written to or cut.

    Raises:
        ValueError: as for `file_size`.
    """
    file_size(path)
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a regular file's content, as hexadecimal digits.

    Raises:
        ValueError: as for `file_size`.
    """
    digest, block = hashlib.sha256(), bytearray(_HASHED_BYTES)
    with open_file(path) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def _regular_size(path: str | Path, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise ValueError(f"{shown(path)} is not a file but {kind}; check the path")
    return status.st_size


def _reason(error: Exception) -> str:
    return shown(error.strerror if isinstance(error, OSError) and error.strerror else error, 80)


@contextmanager
def atomic_write(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file in one step: `with atomic_write(path) as partial: ...` write to `partial`.

    At the end of the block the data is flushed to the disk and takes the name `path`; after an exception,
    or where the process is killed, `path` is as before.

    Args:
        path: destination; its folder exists.
        overwrite: replace an existing file; otherwise FileExistsError is raised at the end of the block.
    Yields:
        An empty file of a unique name in the same folder. An exception removes it.
    """
    path = Path(path)
    with scratch_file(path) as partial:
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:  # safetensors lets only the owner read its files
            partial.chmod(mode)
        sync(partial)
        _place(partial, path, overwrite)
    sync(path.parent)


def _place(partial: Path, path: Path, overwrite: bool) -> None:
    with _named(path):
        if not overwrite:
            _claim(partial, path)
        os.replace(partial, path)


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Make an empty file of a unique name in the folder of `path`; it is removed at the end of the block.

    Where the process is killed, `remove_abandoned(path)` removes it later.
    """
    # In the same folder, since a rename is atomic only within one file system; unique, since several
    # processes may write one file. Names have at most 255 bytes.
    start = os.fsencode(path.name)[:100].decode("utf-8", "ignore")
    partial = path.with_name(f".{start}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with _named(path):
            partial.open("xb").close()
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the system name this path, and not the passing one that it is written under."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def new_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file as `atomic_write` does, with its failures in words: `with new_file(path) as partial: ...`.

    Args:
        path: destination.
        overwrite: replace an existing file; otherwise it is an error, also if it appears meanwhile.
    Yields:
        An empty file in the same folder.
    Raises:
        ValueError: the folder does not exist or cannot be written to, the disk is full, or the file exists.
    """
    _require_folder(path)
    with _in_words(lambda: path):
        remove_abandoned(path)
        with atomic_write(path, overwrite=overwrite) as partial:
            yield partial


@contextmanager
def new_files(
    target: Path, paths: Sequence[Path], *, overwrite: bool = True, outdated: Sequence[Path] = ()
) -> Iterator[Callable[[Path], Path]]:
    """Write files that belong together: they take their names when all are complete.

    `with new_files(target, paths) as partial_of: ...` write to `partial_of(path)` for one path after another.
    After an exception, or where the process is killed before the end of the block, all are as before. Of
    several processes that write the same paths without `overwrite`, one succeeds.

    Args:
        target: the name that they are known by; where the process was killed, the next call of this target
            removes what was left.
        paths: destinations, in the order in which they take their names.
        overwrite: replace existing files; otherwise they are an error, also if they appear meanwhile.
        outdated: files that no longer hold once the first path is replaced; they are removed right before.
    Yields:
        A function from one of the paths to an empty file in its folder.
    Raises:
        ValueError: as for `new_file`, of the file that was being written.
    """
    for path in paths:
        _require_folder(path)
    partials: dict[Path, Path] = {}
    current = target
    with _in_words(lambda: current), ExitStack() as stack:
        for place in {path.with_name(target.name) for path in paths}:
            remove_abandoned(place)

        def partial_of(path: Path) -> Path:
            nonlocal current
            current = path
            partials[path] = stack.enter_context(scratch_file(path.with_name(target.name)))
            return partials[path]

        yield partial_of
        for current in paths:
            sync(partials[current])
        for path in outdated:
            path.unlink(missing_ok=True)
        placed = []
        try:
            for current in paths:
                _place(partials[current], current, overwrite)
                placed.append(current)
        except OSError:
            for path in placed if not overwrite else ():  # names that were free until now
                path.unlink(missing_ok=True)
            raise
    for folder in {path.parent for path in paths}:
        sync(folder)


def _require_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise ValueError(
            f"cannot write {shown(path)}: the folder {shown(path.parent)} does not exist; create it first"
        )


@contextmanager
def _in_words(current: Callable[[], Path]) -> Iterator[None]:
    """Errors of the system as ValueErrors that say what to do about the file which is being written."""
    try:
        yield
    except FileExistsError as error:
        raise ValueError(f"{shown(current())} exists already; give another name, or --overwrite") from error
    except OSError as error:
        raise ValueError(f"cannot write {shown(current())}: {reason_of(error)}") from error


def _claim(partial: Path, path: Path) -> None:
    """Take a name that must be free, so that of several writers one succeeds."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.open("xb").close()


def remove_abandoned(path: Path) -> None:
    """Remove what `atomic_write` and `scratch_file` left of a file where its process was killed.

    Processes of other machines or containers, which may share the folder, are not known to have ended: their
    files stay.
    """
    if os.name == "nt":
        return  # there is no harmless way to ask for a process
    start = re.escape(os.fsencode(path.name)[:100].decode("utf-8", "ignore"))
    pattern = re.compile(rf"\.{start}\.{_host()}-(\d{{1,9}})-[0-9a-f]{{8}}\.partial")
    with suppress(OSError), os.scandir(path.parent) as entries:  # a folder may be writable and not readable
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and _has_ended(int(match[1])):
                os.unlink(entry.path)


def _has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to somebody else
        return False
    return False


@cache
def _host() -> str:
    """Key of what process numbers refer to: this machine since its start, and the container on it."""
    parts = [platform.node()]
    with suppress(OSError):  # Linux alone has these
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("".join(parts).encode("utf-8", "replace")).hexdigest()[:8]


def reason_of(error: OSError) -> str:
    """An operating system's error with what to do about it."""
    if error.errno is None and " requested and " in str(error):  # numpy, of a write cut short
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason = _reason(error)
    return f"{reason}; {_CURES.get(error.errno, 'give another folder')}"


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows flushes no folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
