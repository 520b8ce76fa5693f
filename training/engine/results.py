"""JSON files of results: each is made once, by one process, and again where its key has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdot_core.files import remove_abandoned

from .files import read_json
from .lock import claimed


def has_result(path: Path, name: str, key: str, cure: str) -> bool:
    """True if a file is there and its entry `name` is the key.

    Raises:
        ValueError: The file is damaged; the cure is said.
    """
    return path.is_file() and read_json(path, dict, cure).get(name) == key


@contextmanager
def made_once(path: Path, name: str, key: str, cure: str) -> Iterator[bool]:
    """Hold the right to make a file of results; its folder is created.

    Args:
        path: The file.
        name: Its entry that holds the key.
        key: Digest of everything that the results depend on.
        cure: What to do where the file is damaged.

    Yields:
        False where it is there with this key, or where another process is making it.

    Raises:
        ValueError: The file is damaged.
    """
    if has_result(path, name, key, cure):
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with claimed(path) as mine:
        to_make = mine and not has_result(path, name, key, cure)
        if to_make:
            remove_abandoned(path)
        yield to_make
