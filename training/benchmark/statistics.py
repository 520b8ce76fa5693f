"""Means of measures over groups of rows, and intervals of paired differences between models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .index import FAMILIES, Benchmark

ALL = "all"
# Resampling fewer rows shows too little of their spread.
MIN_ROWS = 5
Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Model -> row -> measure -> value."""


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the intervals.

    Attributes:
        num_resamples: Of the rows.
        confidence: Of the intervals, such as 0.95.
        seed: Of the resampling.
    """

    num_resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Mean:
    """A mean over rows."""

    value: float
    count: int


@dataclass(frozen=True)
class Difference:
    """A mean difference over the rows that both models have, with its interval.

    Attributes:
        value: Model minus baseline.
        low, high: The interval; None of fewer rows than `MIN_ROWS`.
        count: Rows.
    """

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def is_clear(self) -> bool:
        """True if the interval leaves out 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Group:
    """Rows that are averaged together.

    Attributes:
        kind: all, family or task.
        name: Its name.
        means: Measure -> model -> mean.
        differences: Measure -> model -> difference from the first model.
    """

    kind: str
    name: str
    means: dict[str, dict[str, Mean]]
    differences: dict[str, dict[str, Difference]]


def groups_of(benchmark: Benchmark) -> dict[tuple[str, str], list[str]]:
    """(Kind, name) -> names of the rows: all, by family, by task."""
    groups: dict[tuple[str, str], list[str]] = {(ALL, ALL): [sample.name for sample in benchmark.samples]}
    for family in FAMILIES:
        names = [sample.name for sample in benchmark.samples if sample.family == family]
        if names:
            groups["family", family] = names
    for task in benchmark.tasks:
        groups["task", task] = [sample.name for sample in benchmark.samples if sample.task == task]
    return groups


def summarize(
    values: Values, benchmark: Benchmark, measures: Sequence[str], settings: Bootstrap
) -> list[Group]:
    """Means and differences of all groups.

    Args:
        values: Of all models; the first is the baseline.
        benchmark: The rows.
        measures: Names of the measures.
        settings: Of the intervals.
    """
    baseline = next(iter(values))
    result = []
    for (kind, name), rows in groups_of(benchmark).items():
        means: dict[str, dict[str, Mean]] = {}
        differences: dict[str, dict[str, Difference]] = {}
        for measure in measures:
            own = {
                model: {row: of[row][measure] for row in rows if measure in of.get(row, {})}
                for model, of in values.items()
            }
            means[measure] = {m: Mean(float(np.mean(list(v.values()))), len(v)) for m, v in own.items() if v}
            differences[measure] = {}
            for model in list(values)[1:]:
                common = [row for row in own[model] if row in own[baseline]]
                if common:
                    pairs = np.array([[own[model][row], own[baseline][row]] for row in common])
                    differences[measure][model] = paired_difference(pairs[:, 0], pairs[:, 1], settings)
        result.append(Group(kind, name, means, differences))
    return result


def paired_difference(values: np.ndarray, baseline: np.ndarray, settings: Bootstrap) -> Difference:
    """Mean of paired differences with its percentile bootstrap interval over rows.

    Args:
        values, baseline: [N] of the same rows.
        settings: Of the interval.
    """
    from scipy.stats import bootstrap

    differences = np.asarray(values, float) - np.asarray(baseline, float)
    mean = float(differences.mean())
    if len(differences) < MIN_ROWS:
        return Difference(mean, None, None, len(differences))
    if np.ptp(differences) == 0:
        return Difference(mean, mean, mean, len(differences))
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=settings.num_resamples,
        batch=max(1, 10_000_000 // len(differences)),
        confidence_level=settings.confidence,
        method="percentile",
        random_state=np.random.default_rng(settings.seed),
    ).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high), len(differences))
