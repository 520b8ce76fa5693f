"""Encode the data of a run once: `python training/cache.py --config training/configs/<run>.yaml`.

Reads the same file and the same keys as training/distill.py, of which only `data` matters here, encodes every
row's clips and captions, and writes them to data.cache_dir; see training/data/cache.py. Without a file:

    python training/cache.py --data.source manifest --data.path clips.csv --data.cache_dir cache \
        --data.vae Wan2.1/vae --data.text_encoder Wan2.1/text_encoder

It resumes after a kill, and encodes rows that were appended to the manifest. Several processes share the
work: under torchrun or SLURM by themselves, otherwise with --rank R --world_size N for each. Rows that cannot
be used are named; once their files are there, --retry_skipped tries them again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.data.bad_rows import log_skipped
from training.data.cache import INDEX, Cache, cached_rows
from training.data.cache_writer import encode_all, missing_shards
from training.data.config import DataConfig
from training.data.producer import Producer, make_producer
from training.methods.programs import distill_parser, finetune_parser

logger = logging.getLogger("vdot")


def _from_environment(*names: str) -> int | None:
    """The first of these variables that torchrun or SLURM has set."""
    return next((int(os.environ[name]) for name in names if name in os.environ), None)


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The program's own flags, and the rest of the command line."""
    flags = argparse.ArgumentParser(
        prog="python training/cache.py",
        usage="%(prog)s --config FILE [--data.KEY VALUE ..] [options]",
        description=__doc__,
        epilog="The keys, their units and defaults: python training/distill.py --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    rank, size = _from_environment("RANK", "SLURM_PROCID"), _from_environment("WORLD_SIZE", "SLURM_NTASKS")
    flags.add_argument(
        "--rank", type=int, default=rank or 0, help="this process's share, from 0 (default: %(default)s)"
    )
    flags.add_argument(
        "--world_size", type=int, default=size or 1, help="shares in all (default: %(default)s)"
    )
    flags.add_argument("--retry_skipped", action="store_true", help="retry rows that were left out")
    return flags.parse_known_args(list(argv))


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
        return make_producer(config)
    from training.data.rows import RowsProducer

    return RowsProducer(config, local_rank, cached_rows(config.cache_dir))


def encode(config: DataConfig, rank: int = 0, world_size: int = 1, *, retry_skipped: bool = False) -> bool:
    """Encode one process's share, and report when it was the last.

    Args:
        config: The samples, their encoders and the cache.
        rank, world_size: The share.
        retry_skipped: Encode shards again that have rows which were missing, unreadable or failed.

    Returns:
        True if the cache is complete.
    """
    folder = Path(config.cache_dir)
    local_rank = _from_environment("LOCAL_RANK", "SLURM_LOCALID")
    producer = build_producer(config, rank if local_rank is None else local_rank)
    if encode_all(folder, producer, rank, world_size, wait=False, retry_skipped=retry_skipped):
        _report(Cache(folder))
        return True
    count = len(missing_shards(folder, producer.num_shards))
    logger.info("%s: this share is done; other processes still encode %d shards", folder, count)
    return False


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


def read_data(argv: Sequence[str]) -> DataConfig:
    """The data settings of a command line, whose --config may be a distillation's or a fine-tuning's file."""
    try:
        return distill_parser().read(argv)[0].data
    except ValueError as error:
        try:
            return finetune_parser().read(argv)[0].data
        except ValueError:
            raise error from None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        options, rest = _flags(sys.argv[1:] if argv is None else argv)
        config = read_data(rest)
        encode(config, options.rank, options.world_size, retry_skipped=options.retry_skipped)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
