"""Checks of where a result may be written, and what a checkpoint's name stood for before.

A name stands for one file or for parts with an index; a folder with both would not tell which is meant.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import gettempdir
from typing import ParamSpec, TypeVar

from ..files import file_size
from ..text import shown
from .folders import INDEX_SUFFIX, listed_shards

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def by_one_process(write: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let one process of this machine at a time write a target: one of two would remove the other's parts.

    Args:
        write: function whose second argument is the target.
    Returns:
        It, which raises ValueError where another process writes the target.
    """

    @wraps(write)
    def alone(source, target, *args, **options):
        with _claimed(Path(target)):
            return write(source, target, *args, **options)

    return alone


@contextmanager
def _claimed(target: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends; without one where it has none."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(target))).hexdigest()[:24]
    path = Path(gettempdir()) / f"vdot-{name}.lock"
    descriptor = _locked(path, target)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path, target: Path) -> int | None:
    """Descriptor of a lock; None where the system cannot lock the file. ValueError where it is held."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(descriptor)
            raise ValueError(
                f"another process is writing {shown(target)}; wait until it ends, or give another name"
            ) from error
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # the process that held it has just removed it


def checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"cannot write {shown(path)}: the format is safetensors; give a name that ends in .safetensors"
        )
    if os.path.isdir(path):
        raise ValueError(f"cannot write {shown(path)}: it is a folder; give a file name")
    return path


def require_free(target: Path, overwrite: bool) -> None:
    """Refuse to replace a link, a pipe or a device at all, and a file unless that is allowed."""
    if not os.path.lexists(target):
        return
    if target.is_symlink():
        raise ValueError(f"{shown(target)} is a link; give the name of a file, or remove the link")
    file_size(target)
    if not overwrite:
        raise ValueError(f"{shown(target)} exists already; give another name, or --overwrite")


def require_apart(targets: Iterable[Path], sources: Iterable[Path]) -> None:
    """Refuse to replace a file that is one of several inputs, or that is read after it would be replaced."""
    sources = tuple(sources)
    for target in targets:
        if os.path.exists(target) and any(os.path.samefile(target, source) for source in sources):
            raise ValueError(f"{shown(target)} is one of the files to read; give another name for the result")


def earlier_forms(
    target: Path, new: Collection[Path], *, overwrite: bool, sources: Sequence[Path] = ()
) -> list[Path]:
    """Files of a checkpoint's earlier form, for the writer to remove once the new one is complete.

    They are the file NAME.safetensors, its index, and the parts of that name which the index lists; other
    files of the folder are never among them.

    Args:
        target: 'NAME.safetensors'.
        new: files that are about to be written.
        overwrite: as the user asked; without it, an earlier form is refused.
        sources: files that are still read; none of them is removed.
    Raises:
        ValueError: an earlier form that may not be removed, or a part that no index lists.
    """
    if not target.parent.is_dir():
        return []
    index = target.with_name(target.name + INDEX_SUFFIX)
    part = re.compile(re.escape(target.stem) + r"-\d{5}-of-\d{5}\.safetensors")
    with os.scandir(target.parent) as entries:
        parts = sorted(entry.name for entry in entries if part.fullmatch(entry.name))
    known = _known_parts(target, index) if os.path.lexists(index) else set()
    new_names = {path.name for path in new}
    unknown = [name for name in parts if name not in known | new_names]
    if unknown:
        raise ValueError(
            f"{shown(target.with_name(unknown[0]), 200)} is a part of an earlier {shown(target.name, 60)} "
            "that no index lists; remove it, or give another name for the result"
        )
    paths = (target, index, *(target.with_name(name) for name in parts))
    earlier = [path for path in paths if path.name not in new_names and os.path.lexists(path)]
    for path in earlier:
        require_free(path, overwrite)
    require_apart(earlier, sources)
    return earlier


def _known_parts(target: Path, index: Path) -> set[str]:
    try:
        return set(listed_shards(index))
    except ValueError as error:
        raise ValueError(
            f"cannot write {shown(target, 160)}: {shown(index.name, 80)} in its folder lists no parts "
            "that can be read; remove it, or give another name for the result"
        ) from error


def remove(paths: Sequence[Path]) -> None:
    """Remove an earlier form, its index before its parts."""
    for path in paths:
        path.unlink(missing_ok=True)
