"""Prepare training data: `python training/prepare.py --config training/configs/prepare_example.yaml`.

Cuts raw videos into clips, rejects bad ones, captions and annotates the rest, and writes a manifest,
WebDataset shards that training/cache.py reads, and a contact sheet to `out_dir`; see training/preparation. It
resumes after a kill. Bad files are named and left out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import RunParser
from training.engine.files import write_problem
from training.engine.stopping import interrupt_in_words
from training.preparation.config import PrepareConfig
from training.preparation.prepare import estimate, prepare
from training.preparation.stage import StopError
from vdot_core.foreign import UnusableModelError
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import shown

logger = logging.getLogger("vdot")


def parser() -> RunParser[PrepareConfig]:
    """The program's parser."""
    run = RunParser(PrepareConfig, prog="python training/prepare.py", description=__doc__)
    run.parser.add_argument(
        "--budget", type=int, help="estimate the hours for so many clips from the finished rows, and end"
    )
    return run


@interrupt_in_words
@memory_in_words(
    "lower clips.num_frames, the sizes in clips.buckets or executor.workers; the same command resumes"
)
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry.

    Returns:
        The exit status: 1 if rows have to be tried again or the machine failed, 2 after a user's mistake.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        config, values = parser().read(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    try:
        if values.budget is not None:
            sys.stdout.write(estimate(config, values.budget) + "\n")
            return 0
        return 1 if prepare(config).later else 0
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except (StopError, ImportError, UnusableModelError) as error:
        logger.error("%s. Finished rows are kept", shown(error, 300).rstrip("."))
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        cure = "the same command resumes: finished rows are kept"
        logger.error("%s", write_problem(error, config.out_dir, cure))
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
