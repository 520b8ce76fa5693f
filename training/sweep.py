"""Runs a sweep from one file: `python training/sweep.py --config tiny/configs/tiny_ablation.yaml`.

Every run with every seed is a process. Finished ones are skipped, so the same command resumes a sweep; at the
end a table of means over seeds is printed and written to out_dir/table.md.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.cli import RunParser
from training.engine.lock import locked
from vdot_core.files import atomic_write

logger = logging.getLogger("vdot")
JOB, DONE, LOG = "sweep_job.json", "sweep_done.json", "sweep.log"


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
        table: Columns of the table; empty: all numbers.
        only_table: Print the table of the finished runs and start none.
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

    def __post_init__(self) -> None:
        if not self.runs or any(Path(name).name != name or name.startswith(".") for name in self.runs):
            raise ValueError(
                f"runs are named {list(self.runs)}; give one or more plain words: they are folders"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give one or more, each once")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more processes at once")


def read_sweep(argv: Sequence[str]) -> SweepConfig:
    """Parse a command line such as `--config FILE --jobs 2`; ValueError for a wrong key or value."""
    return RunParser(SweepConfig, prog="python training/sweep.py", description=__doc__).read(argv)[0]


def jobs_of(sweep: SweepConfig) -> dict[Path, list[list[str]]]:
    """Folder of a job -> its commands; the first seed of every run comes first."""
    jobs = {}
    for seed in sweep.seeds:
        for run, keys in sweep.runs.items():
            folder = Path(sweep.out_dir) / run / f"seed{seed}"
            first = [*sweep.command, *(["--config", sweep.base] if sweep.base else [])]
            for key, value in {**keys, "seed": seed, "out_dir": str(folder)}.items():
                first += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            names = {"{out_dir}": str(folder), "{run}": run, "{seed}": str(seed)}
            commands = [first, *([_filled(word, names) for word in command] for command in sweep.after)]
            jobs[folder] = [[sys.executable if word == "python" else word for word in c] for c in commands]
    return jobs


def _filled(word: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        word = word.replace(name, value)
    return word


def claim(folder: Path, commands: list[list[str]]) -> None:
    """Note a job's commands in its folder; ValueError where it was started with others."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / JOB
    if mark.exists() and json.loads(mark.read_text()) != commands:
        raise ValueError(
            f"{folder} was started with other settings ({JOB} there): give another out_dir or name"
        )
    with atomic_write(mark) as partial:
        partial.write_text(json.dumps(commands))


def run_job(folder: Path, commands: list[list[str]], running: set[subprocess.Popen], threads: str) -> bool:
    """Run a job's commands in turn; True if all of them succeeded."""
    for command in commands:
        with (folder / LOG).open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": threads} if threads else None
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        running.add(process)
        status = process.wait()
        running.discard(process)
        if status:
            logger.error("%s: failed with status %d; see %s", folder, status, folder / LOG)
            return False
    (folder / DONE).touch()
    logger.info("%s: done", folder)
    return True


def run_jobs(jobs: Mapping[Path, list[list[str]]], num_jobs: int) -> bool:
    """Run what is not finished; an interrupted sweep ends its processes. True if all succeeded."""
    for folder, commands in jobs.items():
        claim(folder, commands)
    waiting = [job for job in jobs.items() if not (job[0] / DONE).exists()]
    running: set[subprocess.Popen] = set()
    pool = ThreadPoolExecutor(num_jobs)
    try:
        threads = "1" if num_jobs > 1 else ""
        return all(list(pool.map(lambda job: run_job(*job, running, threads), waiting)))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()
        raise
    finally:
        pool.shutdown()


def read_numbers(folder: Path, pattern: str) -> dict[str, float]:
    """A run's numbers; see `SweepConfig.metrics`. ValueError where there are none."""
    numbers = {}
    for file in sorted(folder.glob(pattern)):
        text = file.read_text()
        values = [json.loads(text)] if file.suffix == ".json" else map(json.loads, text.splitlines())
        for value in values:
            prefix = file.stem if "*" in pattern else ""
            numbers |= dict(_flat(value, prefix))
    if not numbers:
        raise ValueError(f"{folder} has no numbers in {pattern}, though its run has ended; set metrics")
    return numbers


def _flat(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


def table_of(sweep: SweepConfig) -> str:
    """Markdown table of means ± standard deviations over seeds; a dash where nothing is known."""
    rows = {}
    for run in sweep.runs:
        folders = [Path(sweep.out_dir) / run / f"seed{seed}" for seed in sweep.seeds]
        rows[run] = [read_numbers(f, sweep.metrics) for f in folders if (f / DONE).exists()]
    columns = sweep.table or sorted({name for seeds in rows.values() for one in seeds for name in one})
    lines = ["| " + " | ".join(["run", "seeds", *columns]) + " |", "|---" * (2 + len(columns)) + "|"]
    for run, seeds in rows.items():
        cells = [run, f"{len(seeds)}/{len(sweep.seeds)}"]
        for name in columns:
            values = [one[name] for one in seeds if name in one]
            spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.4g}{spread}" if values else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns 0, 1 if a run failed, or 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        sweep = read_sweep(sys.argv[1:] if argv is None else argv)
        with nullcontext() if sweep.only_table else locked(sweep.out_dir, "out_dir"):
            success = sweep.only_table or run_jobs(jobs_of(sweep), sweep.jobs)
        text = table_of(sweep)
        Path(sweep.out_dir).mkdir(parents=True, exist_ok=True)
        (Path(sweep.out_dir) / "table.md").write_text(text)
        sys.stdout.write(text)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return 0 if success else 1


if __name__ == "__main__":
    raise SystemExit(main())
