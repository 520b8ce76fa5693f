"""Checks the input files of evaluations before the first row: fail early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..tasks import task_named
from .config import EvaluationConfig
from .generate import model_files


def missing_inputs(runs: Sequence[EvaluationConfig]) -> list[str]:
    """List missing files.

    Args:
        runs: The evaluations, one a model.

    Returns:
        One line for each missing file, with how to get it; empty if all exist.

    Raises:
        ValueError: A row's task is unknown.
    """
    lines: dict[str, str] = {}
    for config in runs:
        for row in config.tasks:
            task_named(row.task)
        transformer, *others = model_files(config.assets, config.transformer)
        needed = {path: _bundled(f"the folder of `assets`, {config.assets}") for path in others}
        needed[Path(config.evaluator)] = (
            "the `evaluator`; it is bundled with the repository, and `python tiny/train.py` trains it"
        )
        needed[transformer] = _transformer(config)
        for path, words in needed.items():
            if not path.is_file():
                lines.setdefault(str(path), f"{path} is missing: {words}")
    return list(lines.values())


def _bundled(where: str) -> str:
    return f"a part of {where}; it is bundled with the repository, and docs/TINY.md says how it is made"


def _transformer(config: EvaluationConfig) -> str:
    """Description of a missing transformer, and how to get it."""
    planned = config.run in [one.run for one in config.plan if one.transformer == config.transformer]
    words = f"the transformer of the {'planned ' if planned else ''}run {config.run!r}"
    if config.transformer is None:
        return f"{words}, {_bundled(f'the folder of `assets`, {config.assets}')}"
    words += f"; make it with `{config.made_by}`" if config.made_by else "; give `transformer` a file's path"
    return words + (", or take the run out of `plan`" if planned else "")
