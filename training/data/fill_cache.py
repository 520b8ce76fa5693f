"""Encodes the data of a run into its cache, one process's share of it; the program is `training/cache.py`."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from vdot_core.text import shown

from ..distributed.environment import whole_number
from .bad_rows import log_skipped
from .cache import INDEX, Cache, cached_rows
from .cache_writer import encode_all, missing_shards
from .config import DataConfig
from .producer import Producer, check_producer_tasks, make_producer

logger = logging.getLogger("vdot")


def build_producer(config: DataConfig, local_rank: int = 0) -> Producer:
    """Make the producer that encodes a configuration's samples.

    Args:
        config: The data settings.
        local_rank: Index of the machine's GPU to use.

    Raises:
        ValueError: They are encoded already, or a setting that encoding needs is missing.
    """
    if config.source == "cache":
        raise ValueError("data.source is cache, which is encoded already; give the manifest or the shards")
    if config.source == "producer":
        producer = make_producer(config)
        check_producer_tasks(producer, {"data.task_weights": config.task_weights})
        return producer
    from .rows import RowsProducer

    return RowsProducer(config, local_rank, cached_rows(config.cache_dir))


def encode(config: DataConfig, rank: int = 0, world_size: int = 1, *, retry_skipped: bool = False) -> bool:
    """Encode one process's share, and report when it was the last.

    Args:
        config: The samples, their encoders and the cache.
        rank, world_size: The share.
        retry_skipped: Encode shards again that have rows which were missing, unreadable or failed.

    Returns:
        True if the cache is complete.

    Raises:
        ValueError: A setting is missing or does not fit, or no row can be used.
    """
    if not 0 <= rank < world_size:
        raise ValueError(
            f"--rank is {rank} and --world_size {world_size}; expected a size of at least 1 and a rank below "
            "it, from 0"
        )
    folder = Path(config.cache_dir)
    _check_apart(config)
    local_rank = whole_number("LOCAL_RANK", "SLURM_LOCALID")
    producer = build_producer(config, rank if local_rank is None else local_rank)
    if encode_all(folder, producer, rank, world_size, wait=False, retry_skipped=retry_skipped):
        cache = Cache(folder)
        _report(cache)
        cache.require_samples()
        return True
    count = len(missing_shards(folder, producer.num_shards))
    logger.info("%s: this share is done; other processes still encode %d shards", folder, count)
    return False


def _check_apart(config: DataConfig) -> None:
    """Refuse a cache around its source: it is removed as one folder, and the clips would go with it."""
    if not config.path or "://" in config.path:
        return
    folder = Path(config.cache_dir).resolve()
    if Path(config.path).resolve().is_relative_to(folder):
        raise ValueError(
            f"data.cache_dir {shown(config.cache_dir, 80)} is the folder of data.path, "
            f"{shown(config.path, 80)}, and a cache is removed as one folder; give one of its own, such as "
            f"{shown(str(Path(config.cache_dir, 'cache')), 80)}"
        )


def _report(cache: Cache) -> None:
    """Log the cache's contents, and the rows that were left out."""
    tasks = Counter(info.task for _, info in cache.samples)
    shapes = Counter(info.shape for _, info in cache.samples)
    summary = ", ".join(f"{task} {count}" for task, count in sorted(tasks.items()))
    logger.info(
        "%s: %d samples (%s) of %d shapes", cache.folder / INDEX, len(cache.samples), summary, len(shapes)
    )
    kinds = Counter(row.kind for row in cache.skipped)
    if kinds:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        logger.warning("skipped %d rows: %s", len(cache.skipped), counted)
    log_skipped(cache.skipped, logging.WARNING, cache.folder / INDEX)
