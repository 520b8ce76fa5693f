"""Runs a sweep from one file: `python training/sweep.py --config tiny/configs/tiny_ablation.yaml`.

Every run with every seed is a process. Finished ones are skipped, so the same command resumes a sweep;
out_dir/table.md shows the means over seeds of what has finished.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import RunParser
from training.engine.files import read_json
from training.engine.lock import locked
from vdot_core.files import atomic_write, file_size, read_file, reason_of
from vdot_core.memory import GIB
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.text import described, parse_json, shown

logger = logging.getLogger("vdot")
JOB, DONE, LOG = "sweep_job.json", "sweep_done.json", "sweep.log"
MAX_METRICS_BYTES = GIB
PLACES = re.compile(r"\{(out_dir|run|seed)\}")


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

    def __post_init__(self) -> None:
        metrics = PurePath(self.metrics)
        own = [f"{run} sets {k}" for run, keys in self.runs.items() for k in ("seed", "out_dir") if k in keys]
        if not self.runs or any(Path(name).name != name or name.startswith(".") for name in self.runs):
            names = described(list(self.runs), 160)
            raise ValueError(f"runs are named {names}; give plain words: they are folders")
        if own:
            raise ValueError(f"runs.{shown(own[0])}, which the sweep sets; give its seeds or out_dir")
        if not metrics.parts or metrics.is_absolute() or ".." in metrics.parts:
            raise ValueError(f"metrics is {described(self.metrics)}; give names of files in a run's folder")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give one or more, each once")
        if not all([self.command, *self.after]):
            raise ValueError("command, or one of after, is empty; give a program and its arguments")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more processes at once")

    def jobs_of(self, run: str) -> dict[Path, list[list[str]]]:
        """A run's folders, by seed in order -> their commands, in order."""
        jobs = {}
        for seed in self.seeds:
            folder = Path(self.out_dir) / run / f"seed{seed}"
            first = [*self.command, *(["--config", self.base] if self.base else [])]
            for key, value in {**self.runs[run], "seed": seed, "out_dir": str(folder)}.items():
                first += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            values = {"{out_dir}": str(folder), "{run}": run, "{seed}": str(seed)}
            after = [[PLACES.sub(lambda match: values[match[0]], word) for word in c] for c in self.after]  # noqa: B023
            words = [first, *after]
            jobs[folder] = [[sys.executable if word == "python" else word for word in c] for c in words]
        return jobs


async def run_jobs(sweep: SweepConfig) -> bool:
    """Run what has not finished, the first seed of all runs first; True if all succeeded.

    Raises:
        ValueError: A folder was started with other settings, or a finished one has no numbers any more.
    """
    by_seed = zip(*(sweep.jobs_of(run).items() for run in sweep.runs), strict=True)
    jobs = dict(job for of_seed in by_seed for job in of_seed)
    for folder, commands in jobs.items():
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / JOB
        if mark.exists() and read_json(mark, list, f"remove {folder} to run it again") != commands:
            raise ValueError(
                f"{folder} was started with other settings ({JOB} there): give another out_dir or name"
            )
        with atomic_write(mark) as partial:
            partial.write_text(json.dumps(commands))
    write_table(sweep)  # damaged results are named before hours of runs
    slots = asyncio.Semaphore(sweep.jobs)

    async def run_job(folder: Path, commands: list[list[str]]) -> bool:
        async with slots:
            resumed = (folder / LOG).exists()
            costs = []
            for command in commands:
                costs.append(await _run(command, folder / LOG, one_thread=sweep.jobs > 1))
                if costs[-1] is None:
                    return False
        try:
            read_numbers(folder, sweep.metrics)
        except ValueError as error:
            logger.error("%s", error)
            return False
        with atomic_write(folder / DONE) as partial:
            partial.write_text(json.dumps({} if resumed else costs[0]))
        write_table(sweep)
        logger.info("%s: done", folder)
        return True

    waiting = [run_job(*job) for job in jobs.items() if not (job[0] / DONE).exists()]
    return all(await asyncio.gather(*waiting))


async def _run(command: list[str], log: Path, one_thread: bool) -> dict[str, float] | None:
    """Run a command; returns what it and its children took, nothing on Windows; None if it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if one_thread else None
    if log.exists():
        file_size(log)  # a pipe would wait for a reader
    with log.open("ab") as file:
        try:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        except OSError as error:
            if is_out_of_memory(error):
                raise
            reason = shown(error.strerror or error, 80)
            name = described(command[0], 120)
            logger.error("%s: %s cannot be run (%s); set command or after", shown(log.parent), name, reason)
            return None
    try:
        costs = await asyncio.to_thread(_wait, process)
    finally:  # an interrupt ends the processes
        if process.returncode is None:
            process.terminate()
    if process.returncode:
        logger.error("%s: failed with status %d; see %s", log.parent, process.returncode, log)
        return None
    return costs


def _wait(process: subprocess.Popen[bytes]) -> dict[str, float]:
    if sys.platform == "win32":
        process.wait()
        return {}
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return {"cpu_minutes": (usage.ru_utime + usage.ru_stime) / 60, "peak_gib": peak / GIB}


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
    mean = sum(value / len(values) for value in values)  # of a run that diverged values are of any size
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


@memory_in_words("lower jobs, or use a machine with more memory; the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns 0, 1 if a run failed, or 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    parser = RunParser(SweepConfig, prog="python training/sweep.py", description=__doc__)
    try:
        sweep, _ = parser.read(sys.argv[1:] if argv is None else argv)
        with locked(sweep.out_dir, "out_dir"):
            success = asyncio.run(run_jobs(sweep))
            sys.stdout.write(write_table(sweep))
    except ValueError as error:
        logger.error("%s", error)
        return 2
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
