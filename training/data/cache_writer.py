"""Filling a cache, by one process or several."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ..engine.files import save_safetensors
from .bad_rows import RETRIED, Skipped
from .cache import EMPTY, FORMAT, HEADER, INDEX, check_header, read_header, read_json, shard_path, write_json
from .encoded import EncodedSample, pack
from .producer import Producer

logger = logging.getLogger("vdot")
WAIT_SECONDS = 2.0
STUCK_SECONDS = 1800.0


def write_shard(folder: Path, number: int, samples: Iterable[EncodedSample], skipped: list[Skipped]) -> None:
    """Write one shard: tensors, then its index."""
    tensors: dict[str, Tensor] = {}
    entries = []
    for slot, sample in enumerate(samples):
        tensors |= pack(sample, slot)
        entries.append(sample.info(slot).to_dict())
    path = shard_path(folder, number, "safetensors")
    # One entry of metadata, no more: the library writes several in any order, and files would differ.
    save_safetensors(tensors, path, {})
    index = {"samples": entries, "skipped": [asdict(row) for row in skipped], "bytes": path.stat().st_size}
    write_json(index, shard_path(folder, number, "json"))


def missing_shards(folder: Path, num_shards: int) -> list[int]:
    """Numbers of shards that are not written yet."""
    return [number for number in range(num_shards) if not shard_path(folder, number, "json").is_file()]


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
        ValueError: The folder holds a cache made otherwise.
        RuntimeError: The memory is exhausted.
    """
    folder = Path(folder)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
    _write_header(folder, producer)
    if rank == 0 and not (folder / EMPTY).is_file():
        save_safetensors({"text": producer.empty_text()}, folder / EMPTY, {})
    own = [number for number in missing_shards(folder, producer.num_shards) if number % world_size == rank]
    for done, number in enumerate(own, 1):
        samples, skipped = producer.encode(number)
        for row in skipped:
            logger.warning("skipped %s", row)
        write_shard(folder, number, samples, skipped)
        if progress:
            progress(done, len(own))
    return finish(folder, producer.num_shards)


def _write_header(folder: Path, producer: Producer) -> None:
    """Write the header of a new cache, or compare with the one that is there."""
    own = {"format": FORMAT, **producer.header(), "num_shards": producer.num_shards}
    own, header = json.loads(json.dumps(own)), read_header(folder)
    if header is not None:
        before, rows = header.get("rows"), own.get("rows")
        # Rows that were appended have shards of their own, after those that are there.
        grown = isinstance(before, list) and before != rows and rows[: len(before)] == before
        ignored = ("rows", "num_shards") if grown else ()
        check_header(header, {n: value for n, value in own.items() if n not in ignored}, folder)
        if not grown:
            return
        logger.info("%s: %d rows were appended", folder, rows[-1][0] - before[-1][0])
    write_json(own, folder / HEADER)


def forget_skipped(folder: Path, rank: int = 0, world_size: int = 1) -> None:
    """Remove the index of this process's shards that have rows worth another try."""
    for path in sorted(folder.glob("shard-*.json")):
        own = int(path.stem.split("-")[1]) % world_size == rank
        if own and any(row["kind"] in RETRIED for row in read_json(path)["skipped"]):
            (folder / INDEX).unlink(missing_ok=True)
            path.unlink()


def finish(folder: Path, num_shards: int) -> bool:
    """Write the index where every shard is there; False where some are still missing."""
    if missing_shards(folder, num_shards) or not (folder / EMPTY).is_file():
        return False
    index = folder / INDEX
    if not index.is_file() or len(read_json(index)["shards"]) != num_shards:
        shards = [read_json(shard_path(folder, number, "json")) for number in range(num_shards)]
        write_json({"shards": shards}, index)
    return True


def encode_all(folder: Path, producer: Producer, rank: int, world_size: int, *, wait: bool = True) -> bool:
    """Fill the cache together with the other processes.

    Args:
        folder, producer, rank, world_size: As in `fill`.
        wait: Wait until the others are done, too.

    Returns:
        True if the cache is complete.

    Raises:
        RuntimeError: No shard was finished for half an hour.
    """
    start = time.monotonic()

    def progress(done: int, total: int) -> None:
        seconds = (total - done) * (time.monotonic() - start) / done
        logger.info("encoded shard %d of %d into %s, about %.0f s left", done, total, folder, seconds)

    if fill(folder, producer, rank, world_size, progress) or not wait:
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
