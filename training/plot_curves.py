"""Draw held-out curves of pretraining: `python training/plot_curves.py curves.png runs/tiny_vae_more ..`.

A panel for each run, a line for each held-out measure in its TensorBoard log.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

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
        raise ValueError(
            f"{run} has no tensorboard folder; give the out_dir of a run of training/pretrain.py"
        )
    # Without purging: a run that was started again is one curve.
    events = EventAccumulator(str(log), purge_orphaned_data=False)
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(PREFIX)]
    if not tags:
        raise ValueError(f"{log} holds no validation; was the run ended before validate_every steps?")
    # A resumed run writes its last steps again; the later value counts.
    return {
        tag.removeprefix(PREFIX): sorted({event.step: event.value for event in events.Scalars(tag)}.items())
        for tag in tags
    }


def plot(curves: dict[str, Curves], path: str | Path) -> None:
    """Draw a panel for each run.

    Args:
        curves: Run -> measure -> (step, value).
        path: Picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    size = (4.2 * columns, 3.1 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis, (name, measures) in zip(axes.flat, curves.items(), strict=False):
        for number, (measure, points) in enumerate(measures.items()):
            style = "-" if number < 10 else "--"
            axis.plot(*zip(*points, strict=True), style, marker=".", label=measure.removeprefix("loss_"))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        bottom, top = axis.get_ylim()
        axis.set_ylim(bottom, top + 0.45 * (top - bottom))  # room for the legend
        axis.legend(fontsize=6, ncols=3, loc="upper center")
    for axis in list(axes.flat)[len(curves) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status, 2 after a user's mistake."""
    parser = argparse.ArgumentParser(prog="python training/plot_curves.py", description=__doc__)
    parser.add_argument("picture", help="file to write, such as curves.png")
    parser.add_argument("runs", nargs="+", help="out_dir of runs")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    try:
        plot({Path(run).name: read_validation(run) for run in given.runs}, given.picture)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
