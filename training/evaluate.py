"""Compare models on a benchmark: `python training/evaluate.py --config FILE --benchmark FOLDER`.

Reads UVCBench's layout, makes the videos that are missing, scores them, and writes tables, a gallery and a
blind page for raters to `out_dir`; see training/benchmark. It resumes after a kill, and torchrun's processes
share the work. Bad rows are named and left out. The table of what raters saved: `--ratings a.csv b.csv`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.benchmark.config import EvaluateConfig
from training.benchmark.evaluate import evaluate, user_study
from training.engine.cli import RunParser
from training.engine.files import write_problem
from training.engine.stopping import interrupt_in_words
from training.preparation.stage import StopError
from vdot_core.foreign import UnusableModelError
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import shown

logger = logging.getLogger("vdot")


def parser() -> RunParser[EvaluateConfig]:
    """The program's parser."""
    run = RunParser(EvaluateConfig, prog="python training/evaluate.py", description=__doc__)
    run.parser.add_argument(
        "--ratings", nargs="+", help="CSV files of the blind page: write the study's table, and end"
    )
    return run


@interrupt_in_words
@memory_in_words(
    "lower max_pixels or num_frames, or use a machine with more memory; finished videos are kept"
)
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry.

    Returns:
        The exit status: 1 if something was left out or the machine failed, 2 after a user's mistake.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        config, values = parser().read(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    try:
        if values.ratings:
            table, left_out = user_study(config, values.ratings)
            sys.stdout.write(table)
        else:
            left_out = evaluate(config)
        return 1 if left_out else 0
    except (ValueError, StopError, ImportError, UnusableModelError) as error:
        logger.error("%s", shown(error, 400))
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        cure = "the same command resumes: finished videos are kept"
        logger.error("%s", write_problem(error, config.out_dir, cure))
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
