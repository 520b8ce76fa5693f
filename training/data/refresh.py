"""Shards of a cache to encode again: of rows that were left out, or whose files were changed."""

from __future__ import annotations

import logging
from pathlib import Path

from vdot_core.text import listed, shown

from .bad_rows import RETRIED
from .cache import INDEX, shard_indexes, shard_path, written_ns
from .cache_index import FILES, read_shard
from .producer import Producer, ReadsFiles
from .source_files import changed

logger = logging.getLogger("vdot")


def forget_skipped(folder: Path, rank: int = 0, world_size: int = 1) -> None:
    """Remove the index of this process's shards that have rows to retry."""
    for path in shard_indexes(folder):
        own = _number(path) % world_size == rank
        if own and any(row["kind"] in RETRIED for row in read_shard(path)["skipped"]):
            _forget(path)


def outdated(folder: Path, producer: Producer) -> dict[int, list[str]]:
    """Shards whose files were changed since they were encoded, with these files."""
    if not isinstance(producer, ReadsFiles):
        return {}
    shards = {_number(path): path for path in shard_indexes(folder)}
    versions = {
        number: read_shard(path).get(FILES, {})
        for number, path in shards.items()
        if number < producer.num_shards
    }
    files = {
        number: changed(producer.files(number), values, written_ns(folder, number))
        for number, values in versions.items()
        if values
    }
    return {number: paths for number, paths in files.items() if paths}


def forget_outdated(folder: Path, producer: Producer, rank: int = 0, world_size: int = 1) -> None:
    """Remove the index of this process's shards whose files were changed, and name these files."""
    for number, paths in outdated(folder, producer).items():
        if number % world_size == rank:
            logger.warning(
                "%s changed since shard %d of %s was encoded: it is encoded again",
                listed(paths, 3), number, shown(folder),
            )  # fmt: skip
            _forget(shard_path(folder, number, "json"))


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _forget(path: Path) -> None:
    (path.parent / INDEX).unlink(missing_ok=True)
    path.unlink()
