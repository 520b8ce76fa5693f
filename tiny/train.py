"""Train all bundled weights from scratch: `python tiny/train.py [--scale 0.01] [--minutes 8]`.

Runs the stages of `tiny/configs/train.yaml` in order: VAE, text encoder, evaluation network, teacher,
student. A finished stage is skipped and an interrupted one resumes, so the same command continues after any
stop. Exit status: 0 all stages are done, 1 a stage failed, 2 a wrong setting, 3 the time limit was reached.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`text`, `tasks`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tiny.pipeline import TimeOverError, read_pipeline, run_stage
from training.engine.files import write_problem
from training.engine.lock import locked
from training.engine.stopping import interrupt_in_words
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words

logger = logging.getLogger("vdot")


@interrupt_in_words
@memory_in_words("close other programs, or use a computer with more memory; the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    begin = time.monotonic()
    try:
        config = read_pipeline(sys.argv[1:] if argv is None else argv)
        with locked(config.out_dir, "out_dir"):
            for stage in config.stages:
                remaining = 60 * config.minutes - (time.monotonic() - begin) if config.minutes else None
                if status := run_stage(config, stage, remaining):
                    logger.error("%s: failed with status %d; its lines above say why", stage.name, status)
                    return 1
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error("%s", write_problem(error, config.out_dir))
        return 1
    except TimeOverError as error:
        logger.info("%s; the same command resumes", error)
        return 3
    logger.info("all stages are done: the weights are in %s", config.weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
