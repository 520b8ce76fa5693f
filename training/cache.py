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
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.data.config import DataConfig
from training.data.fill_cache import encode, from_environment
from training.methods.programs import distill_parser, finetune_parser
from vdot_core.text import shown

logger = logging.getLogger("vdot")


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
    rank, size = from_environment("RANK", "SLURM_PROCID"), from_environment("WORLD_SIZE", "SLURM_NTASKS")
    flags.add_argument(
        "--rank", type=int, default=rank or 0, help="this process's share, from 0 (default: %(default)s)"
    )
    flags.add_argument(
        "--world_size", type=int, default=size or 1, help="shares in all (default: %(default)s)"
    )
    flags.add_argument("--retry_skipped", action="store_true", help="retry rows that were left out")
    return flags.parse_known_args(list(argv))


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
    except OSError as error:
        logger.error(
            "%s takes no more data (%s); make space there, or make it writable, and give the same command "
            "again: finished shards are kept", shown(error.filename or config.cache_dir),
            shown(error.strerror or error, 80),
        )  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
