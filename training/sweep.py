"""Many runs from one file: `python training/sweep.py --sweep tiny/configs/tiny_ablation.yaml`.

A sweep names runs (a base configuration and overrides), and seeds. Every pair is a process of its own, one
per core; what is finished is skipped, so that a sweep goes on after any interruption with the same command.
At the end a table of every run's metrics, mean and spread over seeds, is printed and written.

    out_dir: runs/tiny_ablation
    command: [python, training/distill.py]     # default; from the repository's root
    base: tiny/configs/vdot_tiny.yaml
    seeds: [0, 1, 2]
    jobs: 1                                    # processes at once, each on its own core; 0: every core
    metrics: evaluation/*/renoise4/*.json      # in a run's folder: JSON, or JSON lines (the last counts)
    table: [text/score, depth/score]           # columns; none: every number
    runs:
      full: {}
      no_gan: {losses.gan: false}
    after:                                     # optional: more commands of a run; {run}, {seed} too
      - [python, tiny/evaluate.py, --config, tiny/configs/tiny_evaluation.yaml, --run, "{run}",
         --transformer, "{out_dir}/export/generator.safetensors", --out_dir, "{out_dir}/evaluation"]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.sweep_config import SweepConfig, read_sweep
from training.sweep_table import format_table, read_run, write_text

logger = logging.getLogger("vdot")
JOB, DONE = "sweep_job.json", "sweep_done.json"
POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """One run with one seed.

    Attributes:
        run: Its name.
        seed: Its seed.
        folder: Where it writes.
        commands: What is run there, in turn.
    """

    run: str
    seed: int
    folder: Path
    commands: tuple[tuple[str, ...], ...]

    @property
    def finished(self) -> bool:
        """Whether it was done."""
        return (self.folder / DONE).is_file()

    def claim(self) -> None:
        """Write the commands down in the folder, so that no other settings go on from what is there.

        Raises:
            ValueError: the folder was begun with other commands.
        """
        commands, mark = [list(command) for command in self.commands], self.folder / JOB
        if not mark.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(mark, json.dumps(commands))
        elif json.loads(mark.read_text()) != commands:
            raise ValueError(
                f"{self.folder} was begun with other settings (see {JOB} there); give the sweep another "
                "out_dir or the run another name, or remove the folder"
            )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def make_jobs(sweep: SweepConfig) -> list[Job]:
    """All runs with all seeds, the first seed of every run first.

    Args:
        sweep: What to run.

    Returns:
        The jobs.
    """
    jobs = []
    for seed in sweep.seeds:
        for run, keys in sweep.runs.items():
            folder = Path(sweep.out_dir) / str(run) / f"seed{seed}"
            first = [sys.executable if word == "python" else word for word in sweep.command]
            first += ["--config", sweep.base] if sweep.base else []
            for key, value in {**keys, "seed": seed, "out_dir": str(folder)}.items():
                first += [f"--{key}", _word(value)]
            filled = {"out_dir": str(folder), "run": str(run), "seed": str(seed)}
            after = [[_filled(word, filled) for word in command] for command in sweep.after]
            jobs.append(Job(str(run), seed, folder, (tuple(first), *map(tuple, after))))
    return jobs


def _filled(word: str, values: Mapping[str, str]) -> str:
    if word == "python":
        return sys.executable
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


class Running:
    """A job under way on one core: its commands, one after the other."""

    def __init__(self, job: Job, core: int | None) -> None:
        self.job, self.core, self.begun = job, core, time.monotonic()
        self.waiting = list(job.commands)
        self.log = (job.folder / "sweep.log").open("ab")
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        command = self.waiting.pop(0)
        environment = dict(os.environ)
        if self.core is not None:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        if self.core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {self.core})
        return process

    def poll(self) -> int | None:
        """The exit status once a command fails or all have ended; None before. Starts the next command."""
        status = self.process.poll()
        if status == 0 and self.waiting:
            self.process = self._start()
            return None
        if status is not None:
            self.log.close()
        return status

    def stop(self) -> None:
        """End the process; the run goes on from its own checkpoint when the sweep is started again."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def _cores(jobs: int) -> list[int | None]:
    """The cores to use: those this process may, as many as there are jobs."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * (jobs or os.cpu_count() or 1)
    allowed = sorted(os.sched_getaffinity(0))
    if jobs > len(allowed):
        raise ValueError(f"jobs is {jobs}; there are {len(allowed)} cores: give at most that, or 0 for all")
    return list(allowed[: jobs or len(allowed)])


def run_jobs(jobs: Sequence[Job], num_jobs: int) -> list[Job]:
    """Run what is not finished; a job that fails does not stop the others.

    Args:
        jobs: All jobs.
        num_jobs: Processes at once; 0: one on every core.

    Returns:
        The jobs that failed.

    Raises:
        ValueError: a run's folder was begun with other settings, or there are fewer cores than processes.
    """
    for job in jobs:
        job.claim()
    waiting = [job for job in jobs if not job.finished]
    for job in jobs:
        if job not in waiting:
            logger.info("%s, seed %d: finished before", job.run, job.seed)
    free, running, failed = _cores(num_jobs), [], []
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                logger.info("%s, seed %d: begins, log in %s", job.run, job.seed, job.folder / "sweep.log")
                running.append(Running(job, free.pop(0)))
            time.sleep(POLL_S)
            for one in list(running):
                status = one.poll()
                if status is None:
                    continue
                running.remove(one)
                free.append(one.core)
                _end(one, status, failed)
    finally:
        for one in running:
            one.stop()
    return failed


def _end(one: Running, status: int, failed: list[Job]) -> None:
    job, seconds = one.job, time.monotonic() - one.begun
    if status:
        failed.append(job)
        log = job.folder / "sweep.log"
        logger.error("%s, seed %d: failed with status %d; see %s", job.run, job.seed, status, log)
        return
    write_text(job.folder / DONE, json.dumps({"seconds": round(seconds, 1)}))
    logger.info("%s, seed %d: done in %.0f s", job.run, job.seed, seconds)


def sweep_table(sweep: SweepConfig, jobs: Sequence[Job]) -> str:
    """The table of all finished runs, also written to `out_dir/table.md` and `table.json`.

    Args:
        sweep: The sweep.
        jobs: Its jobs.

    Returns:
        Markdown.
    """
    found = {job: read_run(job.folder, sweep.metrics) for job in jobs if job.finished}
    values = {run: [found[job] for job in jobs if job in found and job.run == run] for run in sweep.runs}
    text = format_table(values, sweep.table, len(sweep.seeds))
    rows = [{"run": job.run, "seed": job.seed, **numbers} for job, numbers in found.items()]
    out = Path(sweep.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.md", text)
    write_text(out / "table.json", json.dumps(rows, indent=1))
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns 0, 1 if a run failed, or 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    about = "Run a sweep, or go on with it."
    parser = argparse.ArgumentParser(prog="python training/sweep.py", description=about)
    parser.add_argument("--sweep", required=True, help="YAML file of the sweep")
    parser.add_argument("--jobs", type=int, help="processes at once, in place of the file's")
    parser.add_argument("--table", action="store_true", help="only print the table of what is finished")
    given = parser.parse_args(argv)
    try:
        sweep = read_sweep(given.sweep)
        jobs = make_jobs(sweep)
        failed = [] if given.table else run_jobs(jobs, sweep.jobs if given.jobs is None else given.jobs)
        sys.stdout.write(sweep_table(sweep, jobs))
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
