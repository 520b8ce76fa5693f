"""Curves of distillations from their metrics.jsonl: matching, transport and GAN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vdot_core.files import read_file
from vdot_core.memory import GIB
from vdot_core.text import parse_json, shown

from ..panels import plot_panels

# Title -> keys of metrics.jsonl.
PANELS = {
    "matching: real - fake score, mean of |.|": ("generator/score_gap",),
    "half the mean square of the transport's gradient": ("generator/otd",),
    "marginal error of the transport": ("generator/transport_error",),
    "iterations of the transport": ("generator/transport_iterations",),
    "critic's flow matching": ("critic/denoising",),
    "logit of real minus generated, critic": ("critic/real_logit", "critic/fake_logit"),
}
SMOOTHING = 25
METRICS_FILE = "metrics.jsonl"
MAX_BYTES = GIB

Curves = dict[str, dict[str, list[tuple[int, float]]]]


def read_curves(folders: Mapping[str, Path]) -> Curves:
    """The panels' curves of every run that has a log: run -> title -> (step, value), smoothed."""
    curves: Curves = {}
    for name, folder in folders.items():
        path = Path(folder) / METRICS_FILE
        if not path.is_file():
            continue
        # A resumed run writes its last steps again; the later line counts.
        steps = {row["step"]: row for row in _rows(path)}
        rows = [steps[step] for step in sorted(steps)]
        curves[name] = {title: _smoothed(rows, keys) for title, keys in PANELS.items()}
    return curves


def _rows(path: Path) -> Iterator[dict]:
    """The steps of a run, as they were logged; ValueError for a line that is none."""
    for number, line in enumerate(read_file(path, MAX_BYTES).decode("utf-8", "replace").splitlines(), 1):
        try:
            row = parse_json(line, allow_nan=True)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError("it has no step")
        except ValueError as error:
            raise ValueError(f"{shown(path)} line {number} is damaged ({error}); remove the line") from error
        yield row


def _smoothed(rows: list[dict], keys: tuple[str, ...]) -> list[tuple[int, float]]:
    """Running mean over `SMOOTHING` values of the key, or of the first key less the second."""
    points = [
        (row["step"], row[keys[0]] - sum(row[key] for key in keys[1:]))
        for row in rows
        if all(key in row for key in keys)
    ]
    starts = range(0, len(points), SMOOTHING)
    chunks = [points[start : start + SMOOTHING] for start in starts]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]


def plot_curves(curves: Curves, path: Path) -> bool:
    """Draw the panels that any run has; False without any."""
    panels = {
        title: {name: curve[title] for name, curve in curves.items() if curve[title]} for title in PANELS
    }
    nonempty = {title: lines for title, lines in panels.items() if lines}
    if nonempty:
        plot_panels(nonempty, path)
    return bool(nonempty)
