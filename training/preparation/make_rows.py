"""Makes the manifest's rows of a clip: one for each task that it suits."""

from __future__ import annotations

import math

from ..data.conditioning import task_names
from .config import PrepareConfig, TaskConfig
from .rules import Clip, UnsuitableError, columns_of
from .stage import Row, draw


def make_rows(row: Row, config: PrepareConfig) -> Row:
    """The rows of a clip.

    Args:
        row: A clip's row with the results of all stages; `absent`, the annotators that could not run.
        config: All settings.

    Returns:
        `rows`, each with `task_name` and its files; `unsuitable`, task -> reason.
    """
    rows, unsuitable, files = [], {}, {}
    for task in _order(row["id"], config.tasks):
        if config.tasks.per_clip is not None and len(rows) >= config.tasks.per_clip:
            break
        try:
            columns = columns_of(Clip(row, config, task, row["absent"], files))
        except UnsuitableError as error:
            unsuitable[task] = str(error)
            continue
        rows.append({"task_name": task, **columns, "target_video_path": row["trim"]["file"]})
    return {"rows": sorted(rows, key=lambda r: r["task_name"]), "unsuitable": unsuitable}


def chosen_tasks(config: TaskConfig) -> dict[str, float]:
    """Task -> weight of those that rows are made of."""
    weights = config.weights or dict.fromkeys(task_names(), 1.0)
    return {task: weight for task, weight in weights.items() if weight}


def _order(clip_id: str, config: TaskConfig) -> list[str]:
    """Tasks in the order in which they are drawn without replacement (Efraimidis and Spirakis, 2006)."""
    weights = chosen_tasks(config)
    times = {
        task: -math.log(1 - draw(config.seed, clip_id, task)) / weight for task, weight in weights.items()
    }
    return sorted(times, key=lambda task: (times[task], task))


def is_held_out(source_id: str, config: TaskConfig) -> bool:
    """True for sources whose clips are never trained on: all clips of a source go the same way."""
    return draw(config.seed, source_id, "held out") < config.held_out
