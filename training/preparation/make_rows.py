"""Makes the manifest's rows of a clip: one for each task that it suits."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vdot_core.text import shown

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


def one_sided(source_ids: Iterable[str], config: TaskConfig) -> str | None:
    """Says that the draw held out none or all of the sources, and what to set; None if it did neither.

    Args:
        source_ids: Sources with clips that are used.
        config: Its `held_out`; 0 holds out nothing on purpose.
    """
    draws = sorted((draw(config.seed, source, "held out"), source) for source in source_ids)
    count = sum(is_held_out(source, config) for _, source in draws)
    if not draws or not config.held_out or 0 < count < len(draws):
        return None
    if len(draws) == 1:
        fact = "the only source is held out" if count else "the only source is trained on"
    elif count:
        fact = f"all {len(draws)} sources are held out"
    else:
        fact = f"none of {len(draws)} sources is held out"
    text = f"{fact} (tasks.held_out {config.held_out:g} is drawn for each by its name)"
    if count:
        return f"{text}: there is nothing to train on; set tasks.held_out 0, or add sources"
    if len(draws) == 1:
        return f"{text}; add sources, or set tasks.held_out 0"
    value, source = draws[0]
    enough = (math.floor(value * 1000) + 1) / 1000
    return f"{text}; tasks.held_out {enough:g} holds out {shown(source, 80)}"
