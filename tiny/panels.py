"""Pictures of curves: a grid of panels, each with its lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Line = Sequence[tuple[int, float]]


def plot_panels(panels: Mapping[str, Mapping[str, Line]], path: str | Path, x_label: str = "step") -> None:
    """Draw a panel for each title, three in a row.

    Args:
        panels: Title -> label -> (step, value).
        path: Picture to write.
        x_label: What the steps are.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (4 * columns, 3 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for number, (label, points) in enumerate(lines.items()):
            # There are ten colors.
            axis.plot(*zip(*points, strict=True), "-" if number < 10 else "--", marker=".", label=label)
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_xlabel(x_label, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        bottom, top = axis.get_ylim()
        axis.set_ylim(bottom, top + 0.45 * (top - bottom))  # room for the legend
        axis.legend(fontsize=6, ncols=3, loc="upper center")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
