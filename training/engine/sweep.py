"""A sweep's settings, its processes and the table of its results; the program is `training/sweep.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from vdot_core.files import atomic_write, file_size, read_file
from vdot_core.text import described, parse_json, shown

from .files import read_json

logger = logging.getLogger("vdot")
JOB, DONE, LOG = "sweep_job.json", "sweep_done.json", "sweep.log"
MAX_METRICS_BYTES = 2**30


@dataclass(frozen=True)
class SweepConfig:
    """A sweep.

    Attributes:
        out_dir: Folder of the runs: out_dir/<run>/seed<seed>.
        runs: Name -> dotted keys that differ from the base.
        base: Configuration file that all runs share; null: none.
        seeds: Seeds; every run is started with each.
        command: Command of a run; python is this interpreter. --config, keys, --seed and --out_dir follow.
        after: Further commands of a run, in order; {out_dir}, {run} and {seed} in them are filled in.
        jobs: Parallel processes; with several, each has one CPU thread.
        metrics: File in a run's folder with its numbers, JSON or JSON lines (the last value of each counts);
            with *, all files that match: the number score of text.json is then text/score.
        table: Columns of the table; empty: all numbers. sweep/cpu_minutes and sweep/peak_gib are the CPU time
            and peak memory (at least this program's) of a run's command, without those after it; not on
            Windows, nor of a resumed run.
        only_table: Print the table of the finished runs and start none.
        page: Markdown file that shows the table between <!-- table NAME --> and <!-- end of table -->, NAME
            being out_dir's last part; null: none.
    """

    out_dir: str
    runs: dict[str, dict[str, Any]]
    base: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    command: list[str] = field(default_factory=lambda: ["python", "training/distill.py"])
    after: list[list[str]] = field(default_factory=list)
    jobs: int = 1
    metrics: str = "metrics.jsonl"
    table: list[str] = field(default_factory=list)
    only_table: bool = False
    page: str | None = None

    def __post_init__(self) -> None:
        if not self.runs or any(Path(name).name != name or name.startswith(".") for name in self.runs):
            raise ValueError(
                f"runs are named {described(list(self.runs), 160)}; give plain words: they are folders"
            )
        for name, changes in self.runs.items():
            if own := [key for key in ("seed", "out_dir") if key in changes]:
                raise ValueError(
                    f"runs.{shown(name)} sets {own[0]}, which the sweep sets; give its seeds or out_dir"
                )
        metrics = PurePath(self.metrics)
        if not metrics.parts or metrics.is_absolute() or ".." in metrics.parts:
            raise ValueError(f"metrics is {described(self.metrics)}; give names of files in a run's folder")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give one or more, each once")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more processes at once")

    def folder(self, run: str, seed: int) -> Path:
        """Folder of a run with a seed."""
        return Path(self.out_dir) / run / f"seed{seed}"

    def commands(self, run: str, seed: int) -> list[list[str]]:
        """Commands of a run with a seed, in order."""
        folder = str(self.folder(run, seed))
        first = [*self.command, *(["--config", self.base] if self.base else [])]
        for key, value in {**self.runs[run], "seed": seed, "out_dir": folder}.items():
            first += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
        values = {"{out_dir}": folder, "{run}": run, "{seed}": str(seed)}
        names = re.compile("|".join(map(re.escape, values)))
        after = [[names.sub(lambda match: values[match[0]], word) for word in c] for c in self.after]
        return [[sys.executable if word == "python" else word for word in c] for c in (first, *after)]


def run_jobs(sweep: SweepConfig) -> bool:
    """Run every run with every seed that is not finished, the first seed of all runs first.

    Args:
        sweep: The sweep; an interrupt ends its processes.

    Returns:
        True if all succeeded.

    Raises:
        ValueError: A folder was started with other settings.
    """
    jobs = [
        (sweep.folder(run, seed), sweep.commands(run, seed)) for seed in sweep.seeds for run in sweep.runs
    ]
    for folder, commands in jobs:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / JOB
        if mark.exists() and read_json(mark, list, f"remove {folder} to run it again") != commands:
            raise ValueError(
                f"{folder} was started with other settings ({JOB} there): give another out_dir or name"
            )
        with atomic_write(mark) as partial:
            partial.write_text(json.dumps(commands))

    async def run_all() -> list[bool]:
        slots = asyncio.Semaphore(sweep.jobs)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} if sweep.jobs > 1 else None
        waiting = [job for job in jobs if not (job[0] / DONE).exists()]
        return await asyncio.gather(*(_run_job(*job, environment, slots) for job in waiting))

    return all(asyncio.run(run_all()))


async def _run_job(
    folder: Path, commands: list[list[str]], environment: dict[str, str] | None, slots: asyncio.Semaphore
) -> bool:
    async with slots:
        resumed, costs = (folder / LOG).exists(), []
        for command in commands:
            with (folder / LOG).open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                costs.append(await asyncio.to_thread(_wait, process))
            finally:
                if process.returncode is None:
                    process.terminate()
            if process.returncode:
                logger.error("%s: failed with status %d; see %s", folder, process.returncode, folder / LOG)
                return False
    with atomic_write(folder / DONE) as partial:
        partial.write_text(json.dumps({} if resumed else costs[0]))
    logger.info("%s: done", folder)
    return True


def _wait(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wait for a process; returns what it and its children took, nothing on Windows."""
    if sys.platform == "win32":
        process.wait()
        return {}
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return {"cpu_minutes": (usage.ru_utime + usage.ru_stime) / 60, "peak_gib": peak / 2**30}


def results_table(sweep: SweepConfig) -> str:
    """Markdown table of means ± standard deviations over seeds; a dash where nothing is known.

    In plain Python: pandas would be a large package for these few lines.
    """
    rows = {}
    for run in sweep.runs:
        folders = [sweep.folder(run, seed) for seed in sweep.seeds]
        rows[run] = [
            {**read_numbers(f, sweep.metrics), **_read_costs(f)} for f in folders if (f / DONE).exists()
        ]
    columns = sweep.table or sorted({name for seeds in rows.values() for one in seeds for name in one})
    lines = [["run", "seeds", *columns], ["---"] * (2 + len(columns))]
    for run, seeds in rows.items():
        cells = [_mean([one[name] for one in seeds if name in one]) for name in columns]
        lines.append([run, f"{len(seeds)}/{len(sweep.seeds)}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show_on_page(sweep: SweepConfig, table: str | None = None) -> None:
    """Replace the sweep's table on its page; without a table only find its place, before hours of runs.

    Raises:
        ValueError: The page has no place for it.
    """
    if sweep.page is None:
        return
    page, name = Path(sweep.page), Path(sweep.out_dir).name
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    begin, end = f"<!-- table {name} -->\n", "<!-- end of table -->"
    before, mark, rest = text.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark):
        raise ValueError(f"page {page} has no lines {begin.strip()} and {end}; add them, or set page null")
    if table is None:
        return
    with atomic_write(page) as partial:
        partial.write_text(f"{before}{begin}{table}{end}{after}", encoding="utf-8")


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def _read_costs(folder: Path) -> dict[str, float]:
    """What a finished run took; nothing for one of an earlier version, whose mark is empty."""
    mark = folder / DONE
    costs = read_json(mark, dict, f"remove it to run {folder} again") if file_size(mark) else {}
    return dict(_flat(costs, "sweep"))


def read_numbers(folder: Path, pattern: str) -> dict[str, float]:
    """A run's numbers; see `SweepConfig.metrics`. ValueError where there are none."""
    numbers = {}
    for file in sorted(folder.glob(pattern)):
        try:
            text = read_file(file, MAX_METRICS_BYTES).decode("utf-8")
            for value in [text] if file.suffix == ".json" else text.splitlines():
                values = parse_json(value, allow_nan=True)
                numbers |= dict(_flat(values, file.stem if "*" in pattern else ""))
        except ValueError as error:
            raise ValueError(
                f"{shown(file)} holds no numbers ({shown(error, 120)}); remove {DONE} there to run it again"
            ) from error
    if not numbers:
        raise ValueError(f"{folder} has no numbers in {pattern}, though its run has ended; set metrics")
    return numbers


def _flat(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
