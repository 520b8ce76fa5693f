"""Settings of a sweep, and the commands that they stand for."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from vdot_core.text import described, shown

from ..data.checks import is_plain

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
        if not self.runs or not all(map(is_plain, self.runs)):
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
