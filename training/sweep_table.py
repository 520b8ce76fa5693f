"""Numbers of runs, and a table of their means and spreads over seeds."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_metrics(path: Path) -> dict[str, float]:
    """A run's numbers.

    Args:
        path: JSON, its nested keys joined by slashes; or JSON lines, of which the last of each number counts.

    Returns:
        Name -> number; what is no number is left out.

    Raises:
        ValueError: the file is missing or holds no JSON.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, though its run has ended; set the sweep's key metrics")
    text = path.read_text()
    try:
        values: list[Any] = [json.loads(text)]
    except json.JSONDecodeError:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            values = [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} holds neither JSON nor JSON lines: {error}") from error
    found: dict[str, float] = {}
    for value in values:
        found |= _numbers(value)
    return found


def read_run(folder: Path, metrics: str) -> dict[str, float]:
    """A run's numbers, of one file or of many.

    Args:
        folder: The run's.
        metrics: The file's path in it; with *, all that match, each one's numbers behind the file's name,
            such as text/score of text.json.

    Returns:
        Name -> number.

    Raises:
        ValueError: no file is there, one holds no JSON, or two have one name.
    """
    if "*" not in metrics:
        return read_metrics(folder / metrics)
    files = sorted(folder.glob(metrics))
    names = [file.stem for file in files]
    if not files:
        raise ValueError(f"{folder} has no {metrics}, though its run has ended; set the sweep's key metrics")
    if len(set(names)) < len(names):
        raise ValueError(f"{folder}: several files of one name match {metrics}; let it match one of each")
    return {f"{file.stem}/{name}": value for file in files for name, value in read_metrics(file).items()}


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _numbers(value: Any, name: str = "") -> dict[str, float]:
    if isinstance(value, Mapping):
        parts = (_numbers(inner, f"{name}/{key}" if name else str(key)) for key, inner in value.items())
        return {key: number for part in parts for key, number in part.items()}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {name or "value": float(value)}
    return {}


def format_table(
    runs: Mapping[str, Sequence[Mapping[str, float]]], columns: Sequence[str], num_seeds: int
) -> str:
    """A Markdown table, one row per run.

    Args:
        runs: Run -> the numbers of every seed that is finished.
        columns: Numbers to show; none: all.
        num_seeds: How many seeds there are to be.

    Returns:
        Means, with standard deviations over seeds where there are several; a dash where nothing is known.
    """
    columns = list(columns) or sorted({name for seeds in runs.values() for one in seeds for name in one})
    lines = [
        f"| run | seeds | {' | '.join(columns)} |" if columns else "| run | seeds |",
        "|---|---|" + "---|" * len(columns),
    ]
    for run, seeds in runs.items():
        cells = [_cell([one[name] for one in seeds if name in one]) for name in columns]
        lines.append(f"| {' | '.join([str(run), f'{len(seeds)}/{num_seeds}', *cells])} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean
