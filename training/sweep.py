"""Runs a sweep from one file: `python training/sweep.py --config tiny/configs/tiny_ablation.yaml`.

Every run with every seed is a process. Finished ones are skipped, so the same command resumes a sweep; at the
end a table of means over seeds is printed and written to out_dir/table.md.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import RunParser
from training.engine.lock import locked
from training.engine.sweep import SweepConfig, results_table, run_jobs, show_on_page

logger = logging.getLogger("vdot")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns 0, 1 if a run failed, or 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    parser = RunParser(SweepConfig, prog="python training/sweep.py", description=__doc__)
    try:
        sweep, _ = parser.read(sys.argv[1:] if argv is None else argv)
        show_on_page(sweep)
        with nullcontext() if sweep.only_table else locked(sweep.out_dir, "out_dir"):
            success = sweep.only_table or run_jobs(sweep)
        text = results_table(sweep)
        show_on_page(sweep, text)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    path = Path(sweep.out_dir) / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(text)
    return 0 if success else 1


if __name__ == "__main__":
    raise SystemExit(main())
