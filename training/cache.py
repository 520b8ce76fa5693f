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

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jsonargparse import Namespace

from training.data.config import DataConfig
from training.data.fill_cache import encode
from training.distributed.environment import whole_number
from training.engine.cli import RunParser
from training.engine.stopping import interrupt_in_words
from training.methods.programs import distill_parser, finetune_parser
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import shown

logger = logging.getLogger("vdot")


def _read(make_parser: Callable[[], RunParser], argv: Sequence[str]) -> tuple[DataConfig, Namespace]:
    run = make_parser()
    run.parser.prog, run.parser.description = "python training/cache.py", __doc__
    rank, size = whole_number("RANK", "SLURM_PROCID"), whole_number("WORLD_SIZE", "SLURM_NTASKS")
    run.parser.add_argument("--rank", type=int, default=rank or 0, help="this process's share, from 0")
    run.parser.add_argument(
        "--world_size", type=int, default=1 if size is None else size, help="shares in all"
    )
    run.parser.add_argument("--retry_skipped", action="store_true", help="retry rows that were left out")
    config, options = run.read(argv)
    return config.data, options


def read_arguments(argv: Sequence[str]) -> tuple[DataConfig, Namespace]:
    """The data settings of a command line, whose --config may be a fine-tuning's file, and all its values."""
    try:
        return _read(distill_parser, argv)
    except ValueError as error:
        try:
            return _read(finetune_parser, argv)
        except ValueError:
            raise error from None


@interrupt_in_words
@memory_in_words(
    "lower data.max_pixels or data.num_frames, or use a machine with more memory; finished shards are kept"
)
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        config, options = read_arguments(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    try:
        encode(config, options.rank, options.world_size, retry_skipped=options.retry_skipped)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error(
            "%s takes no more data (%s); make space there, or make it writable, and give the same command "
            "again: finished shards are kept", shown(error.filename or config.cache_dir),
            shown(error.strerror or error, 80),
        )  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
