"""Hashes of files: taken when they were written or first used, compared before they are used again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vdot_core.files import open_file, sha256_of
from vdot_core.text import shown


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Name -> SHA-256 of each file's content."""
    return {path.name: sha256_of(path) for path in paths}


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
            same = sha256_of(folder / name) == expected[name]
        except (OSError, ValueError) as error:
            return shown(error, 200)
        if not same:
            return f"{shown(name)} has other content than was written"
    return None


def sampled_hash(path: Path, num_blocks: int, block_bytes: int) -> str:
    """SHA-256 of a file's size and content: of all of it, or of blocks evenly spread over a larger file.

    Args:
        path: The file.
        num_blocks: Most blocks that are read, at least 2: the first and the last are among them.
        block_bytes: Size of a block.

    Raises:
        ValueError: It is no regular file, or cannot be read.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size}\0".encode())
        last = max(size, num_blocks * block_bytes) - block_bytes
        for number in range(num_blocks):
            file.seek(last * number // (num_blocks - 1))
            digest.update(file.read(block_bytes))
    return digest.hexdigest()


def tree_hash(*paths: str | Path) -> str:
    """SHA-256 of files, or of all files of folders with their names; not of hidden ones (.cache, .git)."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path} does not exist; give a model file or folder")
        for file in [path] if path.is_file() else _visible_files(path):
            if path.is_dir():
                name = f"{file.relative_to(path).as_posix()}\0"
                total.update(name.encode("utf-8", "surrogatepass"))  # other bytes than UTF-8
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    total.update(block)
    return total.hexdigest()


def _visible_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in files if not any(x.startswith(".") for x in p.relative_to(folder).parts))
