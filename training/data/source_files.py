"""Versions of the files that a shard was made from: recorded at encoding, compared before it is used.

Files on a local disk alone: a remote one has no size and time that can be read without a request each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..engine.hashes import sampled_hash
from .video_files import local_path

NUM_BLOCKS, BLOCK_BYTES = 16, 1 << 16  # of a file's digest
# A network file system answers many questions in the time of one.
THREADS = 16

Version = Sequence[int | str]
"""Size in bytes, time of the last change in nanoseconds, digest."""


def record(paths: Mapping[str, str]) -> dict[str, Version]:
    """Versions of local files, to be taken before they are read.

    Args:
        paths: Name -> path or address.

    Returns:
        Name -> version; remote files, and those that cannot be read, have none.
    """
    versions = {name: _version(local) for name, path in paths.items() if (local := local_path(path))}
    return {name: version for name, version in versions.items() if version is not None}


def changed(
    paths: Mapping[str, str], versions: Mapping[str, Version], made_ns: int | None = None
) -> list[str]:
    """Paths of the files that have other content than was recorded.

    Args:
        paths: As in `record`.
        versions: Its result. A file that is no longer there is not compared.
        made_ns: When what was made of them was written, in nanoseconds: a file that came into its place
            later may have the size and time of the one before. None: not known.
    """
    pairs = [(local_path(path), versions[name]) for name, path in paths.items() if name in versions]
    with ThreadPoolExecutor(THREADS) as threads:
        differs = threads.map(lambda pair: pair[0] is not None and _differs(*pair, made_ns), pairs)
        paths = (path for (path, _), different in zip(pairs, differs, strict=True) if different)
        return list(dict.fromkeys(paths))


def is_record(values: Any) -> bool:
    """True if a value of a file is what `record` gives."""
    return isinstance(values, dict) and all(
        isinstance(version, list) and list(map(type, version)) == [int, int, str]
        for version in values.values()
    )


def _version(path: str) -> list[int | str] | None:
    try:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns, _digest(path)]
    except (OSError, ValueError):
        return None  # reading the row says why


def _differs(path: str, version: Version, made_ns: int | None) -> bool:
    try:
        status = os.stat(path)
        if status.st_size != version[0]:
            return True
        # Copies can keep a file's other times, but not that of its inode's change, which no program sets.
        is_new = made_ns is not None and status.st_ctime_ns > made_ns
        return (status.st_mtime_ns != version[1] or is_new) and _digest(path) != version[2]
    except (OSError, ValueError):
        return False


def _digest(path: str) -> str:
    return sampled_hash(Path(path), NUM_BLOCKS, BLOCK_BYTES)
