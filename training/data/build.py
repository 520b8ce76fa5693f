"""Builds the source of a run's batches from a data configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vdot_core.text import listed, shown

from ..distributed.environment import place
from .cache import Cache, cached_rows, check_header, written_ns
from .cache_writer import encode_all
from .config import ENCODE_SETTINGS, DataConfig
from .encoders import text_encoder_digest, vae_digest
from .held_out import ValidationConfig, copies, read_held_out
from .producer import check_producer_tasks, make_producer
from .sampler import check_tasks
from .source import CachedSource
from .source_files import changed

if TYPE_CHECKING:
    from .rows import RowShards


def build_source(
    config: DataConfig,
    *,
    seed: int,
    named_tasks: Mapping[str, Collection[str]] | None = None,
    global_batch: int | None = None,
    accumulation: int | None = None,
    text_only: bool = False,
    need_latents: bool = False,
    validation: ValidationConfig | None = None,
    run_dir: Path | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> CachedSource:
    """Open the samples of a run; a producer encodes its samples first where that was not done yet.

    Args:
        config: The data settings.
        seed: Of the order and of the choice of captions.
        named_tasks: Configuration key -> tasks that it names, besides `task_weights`.
        global_batch, accumulation: None = the configuration's.
        text_only: Prompts (and real latents) without contexts and references: stage 1.
        need_latents: Leave out rows without a real clip: the GAN is on.
        validation: Samples to hold out; None = none.
        run_dir: Folder of the run, in which rank 0 lists every row left out (skipped.txt; without a folder,
            in the log) and saves which samples are held out.
        rank, world_size: Share of the encoding; None = as torchrun's RANK and WORLD_SIZE say. Rank 0 alone
            compares rows and models.

    Returns:
        The source; all processes get the same batches of a step, each its own part.

    Raises:
        ValueError: The cache is missing, unfinished or made from other rows, with other settings, another VAE
            or another text encoder, or holds nothing that can be used; the processes cannot share its
            batches; or a key names a task that no sample has.
    """
    if rank is None or world_size is None:
        own = place()
        rank, world_size = own[0] if rank is None else rank, own[1] if world_size is None else world_size
    cache = _open_cache(config, rank, world_size, named_tasks or {})
    held_out: list[str] = []
    if cache.samples and validation is not None and validation.every and run_dir is not None:
        infos = [info for _, info in cache.samples]
        held_out = read_held_out(run_dir, infos, validation, copies(cache.files), write=rank == 0)
    source = CachedSource(
        cache,
        task_weights=config.task_weights,
        seed=seed,
        global_batch=global_batch or config.batch_size,
        accumulation=accumulation or config.accumulation,
        group_size=config.group_size,
        text_only=text_only,
        need_latents=need_latents,
        skipped_file=run_dir / "skipped.txt" if run_dir is not None and rank == 0 else None,
        held_out=held_out,
    )
    source.micro_batch_size(rank, world_size)
    for key, tasks in (named_tasks or {}).items():
        check_tasks(tasks, source.sampler.tasks, key)
    return source


def _open_cache(
    config: DataConfig, rank: int, world_size: int, named_tasks: Mapping[str, Collection[str]]
) -> Cache:
    """Fill a producer's cache, or compare a finished one with the configuration; then open it."""
    folder = Path(config.cache_dir)
    if config.source == "producer":
        producer = make_producer(config)
        check_producer_tasks(producer, {"data.task_weights": config.task_weights, **named_tasks})
        encode_all(folder, producer, rank, world_size)
        return Cache(folder)
    cache = Cache(folder)
    check_settings(config, cache)
    # One process reads the manifest and the models for all.
    if rank == 0:
        check_rows(config, cache)
        check_encoders(config, cache)
    return cache


def check_settings(config: DataConfig, cache: Cache) -> None:
    """Refuse a cache that was encoded with other settings than the configuration's.

    Of source cache, whose configuration need not repeat them, those are compared that are not the defaults.
    """
    settings = {name: getattr(config, name) for name in (*ENCODE_SETTINGS, "encode_dtype", "text_len")}
    if config.source == "cache":
        defaults = DataConfig()
        settings = {name: value for name, value in settings.items() if value != getattr(defaults, name)}
    # Chosen by the text encoder and the machine that encoded.
    if config.encode_dtype == "auto":
        settings.pop("encode_dtype")
    if config.text_len is None:
        settings.pop("text_len", None)
    check_header(cache.header, settings, cache.folder)


def check_rows(config: DataConfig, cache: Cache) -> None:
    """Refuse a cache that was made from other rows than those of the manifest or the tars."""
    if config.source == "cache":
        return
    from .rows import row_shards

    try:
        shards = row_shards(config, cached_rows(cache.folder))
        versions = shards.versions
    except ValueError as error:
        raise ValueError(f"{error} (data.source cache trains without reading the rows)") from error
    rows = cache.header.get("rows")
    # Caches of the first layout have the hash of all rows alone.
    if rows != versions and rows != versions[-1][1]:
        raise ValueError(
            f"{shown(config.path)} does not have the rows that the cache {shown(cache.folder)} was made "
            "from; run `python training/cache.py`, which encodes rows that were appended, or train on the "
            "cache as it is with data.source cache"
        )
    _check_files(shards, cache)


def _check_files(shards: RowShards, cache: Cache) -> None:
    """Refuse a cache of clips or tars that were changed since, under the same names."""
    for number, versions in enumerate(cache.files):
        written = written_ns(cache.folder, number)
        if versions and (paths := changed(shards.files(number), versions, written)):
            raise ValueError(
                f"{listed(paths, 1, 120)} changed since the cache {shown(cache.folder, 100)} was made from "
                "it; run `python training/cache.py`, which encodes its rows again, or train on the cache as "
                "it is with data.source cache"
            )


def check_encoders(config: DataConfig, cache: Cache) -> None:
    """Refuse a cache that was made with another VAE or text encoder than the configuration's, where given.

    Raises:
        ValueError: A model is not there, or the cache was made with another.
    """
    for name, identify in (("vae", vae_digest), ("text_encoder", text_encoder_digest)):
        path = getattr(config, name)
        if not path:
            continue
        if not Path(path).exists():
            raise ValueError(
                f"data.{name} is {shown(path)}, which does not exist; give the one that {cache.folder} was "
                "made with, or null to train without comparing"
            )
        check_header(cache.header, {name: identify(path)}, cache.folder)
