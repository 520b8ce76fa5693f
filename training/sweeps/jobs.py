"""Runs a sweep's commands: every run with every seed once, several processes at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from training.engine.cli import MAX_BYTES, check_file
from training.engine.files import read_json, write_json
from training.engine.yaml_text import load_yaml
from training.sweeps.config import SweepConfig
from training.sweeps.table import DONE, read_numbers, write_table
from vdot_core.files import atomic_write, file_size, read_file
from vdot_core.memory import GIB
from vdot_core.out_of_memory import is_out_of_memory
from vdot_core.text import described, shown

logger = logging.getLogger("vdot")
JOB, LOG = "sweep_job.json", "sweep.log"


async def run_jobs(sweep: SweepConfig) -> bool:
    """Run what has not finished, the first seed of all runs first; True if all succeeded.

    Raises:
        ValueError: A folder was started with other settings, or a finished one has no numbers any more.
    """
    by_seed = zip(*(sweep.jobs_of(run).items() for run in sweep.runs), strict=True)
    jobs = dict(job for of_seed in by_seed for job in of_seed)
    base = _base_values(sweep)
    for folder, commands in jobs.items():
        folder.mkdir(parents=True, exist_ok=True)
        mark, job = folder / JOB, {"commands": commands, "base": base}
        before = read_json(mark, dict, f"remove {folder} to run it again") if mark.exists() else job
        if before != job:
            what = "settings" if before.get("commands") != commands else f"keys in {shown(sweep.base, 80)}"
            raise ValueError(
                f"{folder} was started with other {what} ({JOB} there): give another out_dir or name"
            )
        write_json(job, mark)
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


def _base_values(sweep: SweepConfig) -> Any:
    """The keys of the base, as JSON reads them back; a start may find another file under its name."""
    if sweep.base is None:
        return None
    check_file(sweep.base)
    values = load_yaml(read_file(sweep.base, MAX_BYTES).decode("utf-8-sig"))
    return json.loads(json.dumps(values, default=str))


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
