"""Results as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vdot_core.text import shown

from .config import EvaluateConfig
from .index import Benchmark
from .scores import Measure
from .statistics import MIN_ROWS, Group, Values


@dataclass(frozen=True)
class Results:
    """All that tables and pages show.

    Attributes:
        config: All settings.
        benchmark: The rows.
        measures: Name -> measure, those that some video has.
        values: Of all videos.
        groups: Means and differences.
        not_run: What was not measured -> why.
        left_out: Sentences on rows and videos that could not be used.
    """

    config: EvaluateConfig
    benchmark: Benchmark
    measures: Mapping[str, Measure]
    values: Values
    groups: Sequence[Group]
    not_run: Mapping[str, str]
    left_out: Sequence[str]

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return [model.name for model in self.config.models]


def as_json(results: Results) -> dict[str, Any]:
    """All numbers."""
    config = asdict(results.config)
    for name in ("judge", "vbench"):
        config.pop(name)  # addresses and programs of this machine
    return {
        "config": config,
        "tasks": list(results.benchmark.tasks),
        "measures": {name: asdict(measure) for name, measure in results.measures.items()},
        "groups": [asdict(group) for group in results.groups],
        "not_run": dict(results.not_run),
        "left_out": list(results.left_out),
        "videos": results.values,
    }


def as_markdown(results: Results) -> str:
    """The tables."""
    models = results.models
    lines = [
        "# Benchmark",
        "",
        f"{len(results.benchmark.samples)} rows of {len(results.benchmark.tasks)} tasks in "
        f"{_cell(results.benchmark.folder.name)}; {', '.join(map(_cell, models))}. Arrows say which way is "
        "better. A mean over fewer rows than another model's has their number after it.",
    ]
    for kind, title in (("all", "All rows"), ("family", "By family"), ("task", "By task")):
        lines += ["", f"## {title}", "", *mean_table(results, kind)]
    if models[1:]:
        percent = f"{100 * results.config.confidence:g}%"
        lines += [
            "",
            f"## Differences from {_cell(models[0])}",
            "",
            f"Mean of paired differences with {percent} bootstrap intervals over rows (from {MIN_ROWS} on); "
            "bold where the interval leaves out 0.",
            "",
            *difference_table(results),
        ]
    lines += ["", "## Measures", ""]
    lines += [f"- **{measure.title}**: {measure.meaning}" for measure in results.measures.values()]
    if results.not_run:
        lines += [
            "",
            "## Not run",
            "",
            *(f"- {_cell(what)}: {_cell(why, 300)}" for what, why in results.not_run.items()),
        ]
    if results.left_out:
        lines += ["", "## Left out", "", *(f"- {_cell(reason, 400)}" for reason in results.left_out)]
    return "\n".join(lines) + "\n"


def head(measure: Measure) -> str:
    """A column's head, with an arrow to where it is better."""
    return measure.title + {1: " ↑", -1: " ↓", 0: ""}[measure.better]


def mean_cell(group: Group, name: str, model: str, digits: int) -> str:
    """A mean, with the number of its rows where other models have more."""
    means = group.means[name]
    if model not in means:
        return "-"
    most = max(mean.count for mean in means.values())
    count = f" ({means[model].count})" if means[model].count < most else ""
    return f"{means[model].value:.{digits}f}{count}"


def mean_table(results: Results, kind: str) -> list[str]:
    """Lines of a table with a row for each group and model."""
    names = list(results.measures)
    lines = [f"| {kind} | model | {' | '.join(head(results.measures[name]) for name in names)} |"]
    lines.append("|---|---|" + "---:|" * len(names))
    for group in (group for group in results.groups if group.kind == kind):
        for model in results.models:
            cells = [mean_cell(group, name, model, results.measures[name].digits) for name in names]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {_cell(group.name)} | {_cell(model)} | {' | '.join(cells)} |")
    return lines


def difference_table(results: Results) -> list[str]:
    """Lines of a table with a row for each group and model."""
    names = list(results.measures)
    lines = [f"| rows | model | {' | '.join(head(results.measures[name]) for name in names)} |"]
    lines.append("|---|---|" + "---:|" * len(names))
    for group in results.groups:
        for model in results.models[1:]:
            cells = [difference_cell(group, name, model, results.measures[name].digits) for name in names]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {_cell(group.name)} | {_cell(model)} | {' | '.join(cells)} |")
    return lines


def difference_cell(group: Group, name: str, model: str, digits: int) -> str:
    """A difference with its interval."""
    difference = group.differences[name].get(model)
    if difference is None:
        return "-"
    text = f"{difference.value:+.{digits}f}"
    if difference.low is not None:
        text += f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return f"**{text}**" if difference.is_clear else text


def _cell(text: str, limit: int = 120) -> str:
    """Text from outside, which must not be read as Markdown."""
    return "".join(f"\\{c}" if c in "|*_`[]<>#\\" else c for c in shown(text, limit))
