"""Training data: samples encoded once to a cache, and batches drawn from it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from .cache import Cache, check_header, fill, finish, missing_shards
from .config import DataConfig
from .encoders import text_encoder_digest, vae_digest
from .loader import step_batches
from .producer import Producer, make_producer
from .sampler import check_tasks
from .source import CachedSource, Source

__all__ = ["CachedSource", "DataConfig", "Source", "build_source", "check_tasks", "step_batches"]

logger = logging.getLogger("vdot")
WAIT_SECONDS = 2.0
STUCK_SECONDS = 1800.0


def build_source(
    config: DataConfig,
    *,
    seed: int,
    global_batch: int | None = None,
    accumulation: int | None = None,
    text_only: bool = False,
    need_latents: bool = False,
    skipped_file: Path | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> CachedSource:
    """Open the samples of a run; a producer encodes its samples first where that was not done yet.

    Args:
        config: Where the samples come from.
        seed: Of the order and of the choice of captions.
        global_batch, accumulation: None = the configuration's.
        text_only: Prompts (and real latents) without contexts and references: stage 1.
        need_latents: Leave out rows without a real clip: the GAN is on.
        skipped_file: Where rank 0 names every row left out, a line each; None = in the log.
        rank, world_size: Share of the encoding; None = as torchrun's RANK and WORLD_SIZE say. Rank 0 alone
            compares the models.

    Returns:
        The source; all processes get the same batches of a step, each its own part.

    Raises:
        ValueError: The cache is missing, unfinished or made with another VAE or text encoder, or holds
            nothing that can be used; or the processes cannot share its batches.
    """
    folder = Path(config.cache_dir)
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    if config.source == "producer":
        encode_all(folder, make_producer(config), rank, world_size)
    cache = Cache(folder)
    # One process reads the models' gigabytes for all.
    if config.source != "producer" and rank == 0:
        check_encoders(config, cache)
    source = CachedSource(
        cache,
        task_weights=config.task_weights,
        seed=seed,
        global_batch=global_batch or config.batch_size,
        accumulation=accumulation or config.accumulation,
        group_size=config.group_size,
        text_only=text_only,
        need_latents=need_latents,
        skipped_file=skipped_file if rank == 0 else None,
    )
    source.micro_batch_size(rank, world_size)
    return source


def check_encoders(config: DataConfig, cache: Cache) -> None:
    """Refuse a cache that was made with other models than the configuration's.

    Args:
        config: Its `vae` and `text_encoder`, where they are given.
        cache: What is trained on.

    Raises:
        ValueError: A model is not there, or the cache was made with another.
    """
    wanted = {}
    for name, identify in (("vae", vae_digest), ("text_encoder", text_encoder_digest)):
        path = getattr(config, name)
        if not path:
            continue
        if not Path(path).exists():
            raise ValueError(
                f"data.{name} is {path}, which does not exist; give the one that {cache.folder} was made "
                "with, or null to train without comparing"
            )
        wanted[name] = identify(path)
    check_header(cache.header, wanted, cache.folder)


def encode_all(folder: Path, producer: Producer, rank: int, world_size: int, *, wait: bool = True) -> bool:
    """Fill the cache together with the other processes, and wait until they are done.

    Args:
        folder, producer, rank, world_size: As in `store.fill`.
        wait: Whether to wait for the others.

    Returns:
        Whether the cache is complete.

    Raises:
        RuntimeError: No shard was finished for half an hour.
    """
    begun = time.monotonic()

    def progress(done: int, total: int) -> None:
        left = (total - done) * (time.monotonic() - begun) / done
        logger.info("encoded shard %d of %d into %s, about %.0f s left", done, total, folder, left)

    if fill(folder, producer, rank, world_size, progress) or not wait:
        return finish(folder, producer.num_shards)
    missing, since = None, time.monotonic()
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
