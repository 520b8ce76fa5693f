"""Intervals of paired differences, and means by group."""

import numpy as np
import pytest

from training.benchmark.index import read_benchmark
from training.benchmark.statistics import Bootstrap, paired_difference, summarize

SETTINGS = Bootstrap(2000, 0.95, 0)


@pytest.mark.full
def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    """Of 30 pairs with much shared noise, about 95 % cover; an unpaired interval would be far wider."""
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(150):
        shared = rng.normal(0, 5, 30)
        a, b = shared + rng.normal(0.3, 0.5, 30), shared + rng.normal(0, 0.5, 30)
        difference = paired_difference(a, b, Bootstrap(200, 0.95, 0))
        covered += difference.low <= 0.3 <= difference.high
        widths.append(difference.high - difference.low)
    assert 0.87 < covered / 150 < 0.99
    assert np.mean(widths) < 0.7  # 4 standard errors of the pairs; 5 without pairing


def test_few_or_equal_rows_have_no_spread_to_resample():
    few = paired_difference(np.array([1.0, 2.0]), np.zeros(2), SETTINGS)
    assert few.value == 1.5 and few.low is None and not few.is_clear
    equal = paired_difference(np.full(6, 2.0), np.zeros(6), SETTINGS)
    assert (equal.low, equal.high, equal.is_clear) == (2.0, 2.0, True)


def test_the_same_seed_gives_the_same_interval():
    values, zeros = np.random.default_rng(0).normal(size=8), np.zeros(8)
    assert paired_difference(values, zeros, SETTINGS) == paired_difference(values, zeros, SETTINGS)
    assert paired_difference(values, zeros, SETTINGS) != paired_difference(
        values, zeros, Bootstrap(2000, 0.95, 1)
    )


def test_groups_are_all_rows_families_and_tasks(bench):
    benchmark = read_benchmark(bench)
    first = {sample.name: {"motion": float(i)} for i, sample in enumerate(benchmark.samples)}
    second = {name: {"motion": values["motion"] + 1} for name, values in list(first.items())[:3]}
    groups = summarize({"a": first, "b": second}, benchmark, ["motion"], SETTINGS)
    by_name = {(group.kind, group.name): group for group in groups}
    everything = by_name["all", "all"]
    assert everything.means["motion"]["a"].value == 3.5 and everything.means["motion"]["b"].count == 3
    assert everything.differences["motion"]["b"].value == pytest.approx(1)
    assert everything.differences["motion"]["b"].count == 3
    assert {name for kind, name in by_name if kind == "family"} == {
        "control",
        "keep",
        "reference",
        "composite",
    }
    assert [name for kind, name in by_name if kind == "task"] == list(benchmark.tasks)
