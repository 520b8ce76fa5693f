"""Filling a cache, by one process or several."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from vdot_core.text import shown

from ..engine.files import save_safetensors, write_json
from ..engine.lock import LOCK, holder, is_held, locked
from .bad_rows import Skipped, log_skipped
from .cache import (
    EMPTY,
    FORMAT,
    INDEX,
    MADE_FROM,
    cached_rows,
    check_header,
    empty_tensors,
    made_from,
    read_empty,
    read_header,
    shard_digest,
    shard_indexes,
    shard_path,
)
from .cache_index import CHECKSUM, FILES, HEADER, checksum, read_shard, read_shards
from .encoded import EncodedSample, pack
from .producer import Producer, ReadsFiles, ReportsRows
from .refresh import forget_outdated, forget_skipped, outdated
from .source_files import Version, record

logger = logging.getLogger("vdot")
WAIT_SECONDS = 2.0
STUCK_SECONDS = 1800.0


def write_shard(
    folder: Path,
    number: int,
    samples: Iterable[EncodedSample],
    skipped: list[Skipped],
    made: str,
    files: Mapping[str, Version] | None = None,
) -> None:
    """Write one shard: tensors, then its index.

    Args:
        folder, number, samples, skipped: The cache, and the shard's place and content.
        made: The cache's `made_from`.
        files: Versions of the files that the shard was made from.
    """
    tensors: dict[str, Tensor] = {}
    entries = []
    for slot, sample in enumerate(samples):
        tensors |= pack(sample, slot)
        entries.append(sample.info(slot).to_dict())
    path = shard_path(folder, number, "safetensors")
    # One entry of metadata, no more: the library writes several in any order, and files would differ.
    save_safetensors(tensors, path, {})
    index = {"samples": entries, "skipped": [asdict(row) for row in skipped], "bytes": path.stat().st_size}
    index |= {"digest": shard_digest(path), MADE_FROM: made, FILES: dict(files or {})}
    write_json({**index, CHECKSUM: checksum(index)}, shard_path(folder, number, "json"))


def missing_shards(folder: Path, num_shards: int) -> list[int]:
    """Numbers of shards that are not written yet."""
    return [number for number in range(num_shards) if not os.path.lexists(shard_path(folder, number, "json"))]


def fill(
    folder: str | Path,
    producer: Producer,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Encode every shard of this process that is not there yet.

    Args:
        folder: The cache; it may be partly filled, by an earlier start or by other processes.
        producer: Makes the samples.
        rank, world_size: Shards with number % world_size == rank are this process's.
        progress: Called with (shards done, shards to do) after each.

    Returns:
        True if the cache is complete now; while other processes still work on it, it is not.

    Raises:
        ValueError: The folder holds a cache made with other settings.
        RuntimeError: The memory is exhausted.
    """
    folder = Path(folder)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
    header = _write_header(folder, producer)
    forget_outdated(folder, producer, rank, world_size)
    if rank == 0 and not _has_empty(folder, header):
        save_safetensors(empty_tensors(producer.empty_text(), header), folder / EMPTY, {})
    own = [number for number in missing_shards(folder, producer.num_shards) if number % world_size == rank]
    if own:
        # Of an earlier start; it would keep what was known of shards that were removed.
        (folder / INDEX).unlink(missing_ok=True)
    if own and isinstance(producer, ReportsRows):
        producer.begin(own)
    num_skipped = 0
    for count, number in enumerate(own, 1):
        files = record(producer.files(number)) if isinstance(producer, ReadsFiles) else None
        samples, skipped = producer.encode(number)
        log_skipped(skipped, logging.WARNING, shard_path(folder, number, "json"), num_skipped)
        num_skipped += len(skipped)
        write_shard(folder, number, samples, skipped, made_from(header), files)
        if progress:
            progress(count, len(own))
    return finish(folder, producer.num_shards)


def _header(producer: Producer) -> dict[str, Any]:
    """The header of a producer's cache, as it is read back."""
    return json.loads(json.dumps({"format": FORMAT, **producer.header(), "num_shards": producer.num_shards}))


def _has_empty(folder: Path, header: dict[str, Any]) -> bool:
    """True if the empty prompt's embedding is there; that of another cache, or a damaged one, is not."""
    try:
        read_empty(folder / EMPTY, header)
    except ValueError:
        return False
    return True


def _write_header(folder: Path, producer: Producer) -> dict[str, Any]:
    """Write the header of a new cache, or compare with the one that is there; returns the cache's."""
    own, header = _header(producer), read_header(folder)
    if header is None:
        if shard_indexes(folder):
            raise ValueError(
                f"{shown(folder)} holds shards but no {HEADER}, which says what encoded them; restore it, or "
                "remove the folder and encode again"
            )
    else:
        before, rows = cached_rows(folder), own.get("rows")
        # Appended rows have separate shards, after the existing ones.
        grown = bool(before) and isinstance(rows, list) and before != rows and rows[: len(before)] == before
        ignored = ("rows", "num_shards") if grown else ()
        check_header(header, {n: value for n, value in own.items() if n not in ignored}, folder)
        own = {**header, **own}
        if not grown:
            return own
        logger.info("%s: rows were appended; they are encoded alone", folder)
    write_json(own, folder / HEADER)
    return own


def finish(folder: Path, num_shards: int) -> bool:
    """Write the index where every shard is there; False where some are still missing."""
    if missing_shards(folder, num_shards) or not os.path.lexists(folder / EMPTY):
        return False
    index = folder / INDEX
    if not os.path.lexists(index) or len(read_shards(index)) != num_shards:
        shards = [read_shard(shard_path(folder, number, "json")) for number in range(num_shards)]
        write_json({"shards": shards}, index)
    return True


@contextmanager
def sharing(folder: Path, rank: int, world_size: int, *, wait: bool = False) -> Iterator[None]:
    """Hold this process's share of a cache: one job at a time writes it, whose processes are one.

    Args:
        folder: The cache.
        rank, world_size: The share; processes of another world size are another job.
        wait: Wait for another job to end; False refuses at once.

    Raises:
        ValueError: Another job writes the cache.
    """
    own, others = f"-of-{world_size}{LOCK}", f".encoding-*-of-*{LOCK}"
    grace_s, announced = STUCK_SECONDS if wait else None, False
    while True:
        with locked(folder, "data.cache_dir", name=f".encoding-{rank}{own}", grace_s=grace_s):
            paths = (path for path in folder.glob(others) if not path.name.endswith(own))
            other = next((path for path in paths if is_held(path)), None)
            if other is None:
                yield
                return
            message = f"{folder} is being encoded by {holder(other)}, of a job of another number of processes"
            if not wait:
                raise ValueError(
                    f"{message}; wait until that ends, or give another data.cache_dir. If it no longer runs, "
                    f"remove {other}"
                )
        if not announced:
            logger.info("%s: waiting for it", message)
            announced = True
        time.sleep(WAIT_SECONDS * (1 + random.random()))


def encode_all(
    folder: Path,
    producer: Producer,
    rank: int,
    world_size: int,
    *,
    wait: bool = True,
    retry_skipped: bool = False,
) -> bool:
    """Fill the cache together with the other processes.

    Args:
        folder, producer, rank, world_size: As in `fill`.
        wait: Wait until the others are done, too, and for other jobs that encode into the folder.
        retry_skipped: Encode shards again that have rows worth another try.

    Returns:
        True if the cache is complete.

    Raises:
        ValueError: Another job encodes into the folder, and `wait` is off.
        RuntimeError: No shard was finished for half an hour.
    """
    # Complete, it may be read by many runs and lie on storage that is not writable.
    if (
        not retry_skipped
        and read_header(folder) == _header(producer)
        and finish(folder, producer.num_shards)
        and not outdated(folder, producer)
    ):
        return True
    start = time.monotonic()

    def progress(count: int, total: int) -> None:
        seconds = (total - count) * (time.monotonic() - start) / count
        logger.info("encoded shard %d of %d into %s, about %.0f s left", count, total, folder, seconds)

    with sharing(folder, rank, world_size, wait=wait):
        if retry_skipped:
            forget_skipped(folder, rank, world_size)
        complete = fill(folder, producer, rank, world_size, progress)
    if complete or not wait:
        return finish(folder, producer.num_shards)
    missing, since = missing_shards(folder, producer.num_shards), time.monotonic()
    while not finish(folder, producer.num_shards):
        now_missing = missing_shards(folder, producer.num_shards)
        if now_missing != missing:
            missing, since = now_missing, time.monotonic()
        if time.monotonic() - since > STUCK_SECONDS:
            raise RuntimeError(
                f"waited {STUCK_SECONDS:.0f} s for {len(missing)} shards of {folder} that other processes "
                "encode; look for one that died"
            )
        time.sleep(WAIT_SECONDS)
    return True
