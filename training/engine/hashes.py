"""Hashes of a checkpoint's files: taken when it was written, compared before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from vdot_core.files import open_file
from vdot_core.text import shown

BLOCK_BYTES = 1 << 20


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Name -> SHA-256 of each file's content."""
    return {path.name: _hash(path) for path in paths}


def altered(folder: Path, expected: Mapping[str, str], share: int = 0, shares: int = 1) -> str | None:
    """Compare the files of a checkpoint with their hashes.

    Args:
        folder: The checkpoint.
        expected: Name -> hash.
        share, shares: Compare this one of so many equal shares of the files.

    Returns:
        The damage, such as "__0_0.distcp has other content than was written"; None if all are the same.
    """
    for name in sorted(expected)[share::shares]:
        try:
            same = _hash(folder / name) == expected[name]
        except (OSError, ValueError) as error:
            return shown(error, 200)
        if not same:
            return f"{shown(name)} has other content than was written"
    return None


def _hash(path: Path) -> str:
    digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
    with open_file(path) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()
