"""What a sweep is: runs that differ in a few keys, and seeds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SweepConfig:
    """A sweep.

    Attributes:
        out_dir: Folder of the runs, one below it for each run and seed.
        runs: Name -> dotted keys that differ from the base.
        base: Configuration file that all runs share; null: none.
        seeds: Every run is done with each.
        command: What a run is started with; python is this interpreter. Then come --config, the overrides,
            --seed and --out_dir.
        after: Further commands of a run, each after the one before has ended well; {out_dir}, {run} and
            {seed} in their words are filled in.
        jobs: Processes at once, each bound to a core; 0: as many as this process may use.
        metrics: File in a run's folder with its numbers: JSON, or JSON lines, whose last ones count. With *,
            all files that match; the number score of text.json is text/score.
        table: Columns of the table; none: every number that the runs have.
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
        if not isinstance(self.runs, Mapping) or not self.runs:
            raise ValueError(f"runs is {self.runs!r}; give names, each with the keys that differ (or {{}})")
        for name, keys in self.runs.items():
            if not isinstance(keys, Mapping):
                raise ValueError(f"runs.{name} is {keys!r}; give keys and values, or {{}}")
            if Path(str(name)).name != str(name) or str(name).startswith("."):
                raise ValueError(f"runs has the name {name!r}; it becomes a folder: give a plain word")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give one or more, each once")
        if self.jobs < 0 or not self.command:
            raise ValueError(f"jobs is {self.jobs}, command {self.command}; give 0 or more, and a command")


def read_sweep(path: str | Path) -> SweepConfig:
    """Read a sweep's file.

    Args:
        path: YAML.

    Returns:
        The sweep.

    Raises:
        ValueError: the file is missing, or a key is unknown, missing or wrong.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--sweep {path}: there is no such file")
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, Mapping):
        raise ValueError(f"--sweep {path}: holds a {type(values).__name__}; expected keys and values")
    known = [one.name for one in fields(SweepConfig)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"--sweep {path}: unknown key {key}; {hint}")
    if missing := [key for key in ("out_dir", "runs") if key not in values]:
        raise ValueError(f"--sweep {path}: {missing[0]} is missing")
    return SweepConfig(**values)
