"""Draw held-out curves of pretraining: `python tiny/plot_curves.py curves.png runs/tiny/vae ..`.

A panel for each run, a line for each held-out measure in its TensorBoard log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jsonargparse import ArgumentParser

from tiny.panels import plot_panels
from vdot_core.files import reason_of
from vdot_core.text import shown

logger = logging.getLogger("vdot")
PREFIX = "validation/"

Curves = dict[str, list[tuple[int, float]]]


def read_validation(run: str | Path) -> Curves:
    """Measure -> (step, value) of every validation of a run.

    Args:
        run: A run's `out_dir`.

    Raises:
        ValueError: The run has no log, or no validation in it.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Path(run) / "tensorboard"
    if not log.is_dir():
        raise ValueError(f"{run} has no tensorboard folder; give the out_dir of a run of tiny/pretrain.py")
    # Without purging: a run that was started again is one curve.
    events = EventAccumulator(str(log), purge_orphaned_data=False)
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(PREFIX)]
    if not tags:
        raise ValueError(f"{log} holds no validation; was the run ended before validate_every steps?")
    # A resumed run writes its last steps again; the later value counts.
    return {
        tag.removeprefix(PREFIX).removeprefix("loss_"): sorted(
            {event.step: event.value for event in events.Scalars(tag)}.items()
        )
        for tag in tags
    }


def _named(runs: Sequence[str]) -> dict[str, str]:
    """Runs by the names of their folders; by their paths where two have one name."""
    names = [Path(run).name for run in runs]
    return {run if names.count(name) > 1 else name: run for name, run in zip(names, runs, strict=True)}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    parser = ArgumentParser(prog="python tiny/plot_curves.py", description=__doc__)
    parser.add_argument("picture", help="file to write, such as curves.png")
    parser.add_argument("runs", nargs="+", help="out_dir of runs")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", force=True)
    try:
        curves = {name: read_validation(run) for name, run in _named(arguments.runs).items()}
        plot_panels(curves, arguments.picture)
    except OSError as error:
        place = shown(error.filename or arguments.picture)
        logger.error("%s cannot be written (%s)", place, reason_of(error))
        return 1
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
