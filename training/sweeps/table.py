"""A sweep's table, from the numbers that its finished runs have written.

Without pandas or numpy, whose mean of large values (of a run that diverged) is infinite once their sum is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.engine.files import read_json
from training.sweeps.config import SweepConfig
from vdot_core.files import atomic_write, file_size, read_file
from vdot_core.memory import GIB
from vdot_core.text import parse_json, shown

DONE = "sweep_done.json"
MAX_METRICS_BYTES = GIB


def write_table(sweep: SweepConfig) -> str:
    """Write and return Markdown: means ± standard deviations over finished seeds, or a dash."""
    finished = {run: [f for f in sweep.jobs_of(run) if (f / DONE).exists()] for run in sweep.runs}
    rows = {
        run: [{**read_numbers(f, sweep.metrics), **_read_costs(f)} for f in folders]
        for run, folders in finished.items()
    }
    columns = sweep.table or sorted({name for seeds in rows.values() for one in seeds for name in one})
    lines = [["run", "seeds", *map(_cell, columns)], ["---"] * (2 + len(columns))]
    for run, seeds in rows.items():
        cells = [_mean([one[name] for one in seeds if name in one]) for name in columns]
        lines.append([_cell(run), f"{len(seeds)}/{len(sweep.seeds)}", *cells])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    with atomic_write(Path(sweep.out_dir) / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = sum(value / len(values) for value in values)
    spread = math.hypot(*(value - mean for value in values)) / math.sqrt(max(len(values) - 1, 1))
    return f"{mean:.4g}" + (f" ± {spread:.2g}" if values[1:] else "")


def _cell(name: str) -> str:
    """A name in a table, whose bars end cells."""
    return shown(name).replace("|", "\\|")


def _read_costs(folder: Path) -> dict[str, float]:
    """Costs of a finished run; empty for one of an earlier version, whose mark is empty."""
    mark = folder / DONE
    costs = read_json(mark, dict, f"remove it to run {folder} again") if file_size(mark) else {}
    return dict(_flat(costs, "sweep"))


def read_numbers(folder: Path, pattern: str) -> dict[str, float]:
    """A run's numbers; see `SweepConfig.metrics`. ValueError where there are none."""
    numbers: dict[str, float] = {}
    for file in sorted(folder.glob(pattern)):
        try:
            text = read_file(file, MAX_METRICS_BYTES).decode("utf-8")
            for value in [text] if file.suffix == ".json" else text.splitlines():
                values = parse_json(value, allow_nan=True)
                numbers |= dict(_flat(values, file.stem if "*" in pattern else ""))
        except ValueError as error:
            damage = f"{shown(file)} holds no numbers ({shown(error, 120)})"
            raise ValueError(f"{damage}; remove {DONE} there to run it again") from error
    if not numbers:
        raise ValueError(f"{folder} has no numbers in {pattern}, though its run has ended; set metrics")
    return numbers


def _flat(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
