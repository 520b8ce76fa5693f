"""Runs a sweep from one file: `python training/sweep.py --config tiny/configs/tiny_ablation.yaml`.

Every run with every seed is a process. Finished ones are skipped, so the same command resumes a sweep;
out_dir/table.md shows the means over seeds of what has finished.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import RunParser
from training.engine.lock import locked
from training.engine.stopping import STATUS, interrupt_in_words
from training.sweeps.config import SweepConfig
from training.sweeps.jobs import run_jobs
from training.sweeps.table import write_table
from vdot_core.files import reason_of
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import shown

logger = logging.getLogger("vdot")


async def _until_told(sweep: SweepConfig) -> bool:
    """As `run_jobs`; after SIGTERM, or SIGHUP unless nohup ignores it, its processes are ended too."""
    with suppress(NotImplementedError, AttributeError):  # Windows
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    return await run_jobs(sweep)


@interrupt_in_words
@memory_in_words("lower jobs, or use a machine with more memory; the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns 0, 1 if a run failed, 2 after a user's mistake, 143 after a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    parser = RunParser(SweepConfig, prog="python training/sweep.py", description=__doc__)
    try:
        sweep, _ = parser.read(sys.argv[1:] if argv is None else argv)
        with locked(sweep.out_dir, "out_dir"):
            success = asyncio.run(_until_told(sweep))
            sys.stdout.write(write_table(sweep))
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except asyncio.CancelledError:
        logger.info("ended by a signal, with its runs; the same command resumes")
        return STATUS
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error(
            "%s: %s; the same command resumes", shown(error.filename or sweep.out_dir), reason_of(error)
        )
        return 1
    return 0 if success else 1


if __name__ == "__main__":
    raise SystemExit(main())
