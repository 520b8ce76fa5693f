"""Which samples a step is made of: the statistics, the order, and what it must not depend on."""

from collections import Counter

import numpy as np
import pytest

from training.data.sampler import BLOCK, Sampler

TASKS = ["depth"] * 30 + ["pose"] * 10 + ["reference"] * 20
BUCKETS = ["tall"] * 15 + ["wide"] * 15 + ["wide"] * 10 + ["long"] * 20


def sampler(weights=None, group_size=3, seed=7, tasks=TASKS, buckets=BUCKETS):
    return Sampler(tasks, buckets, weights or {}, group_size, seed)


def test_groups_hold_one_bucket_and_do_not_depend_on_the_order_of_asking():
    one, other = sampler(), sampler()
    numbers = [0, 3, BLOCK - 1, BLOCK, 5 * BLOCK + 17]
    ahead = {number: one.group(number) for number in numbers}
    behind = {number: other.group(number) for number in reversed(numbers)}
    assert ahead == behind
    assert one.group(3) == ahead[3], "asking again gives the same"
    for group in ahead.values():
        assert len({BUCKETS[sample] for sample in group}) == 1
    assert sampler(seed=8).group(0) != ahead[0] or sampler(seed=8).group(3) != ahead[3]


def test_tasks_are_drawn_by_their_weights():
    weights = {"depth": 0.2, "pose": 0.5, "reference": 0.3}
    counter = Counter()
    groups = sampler(weights, group_size=1)
    total = 4000
    for number in range(total):
        counter.update(TASKS[sample] for sample in groups.group(number))
    chi_square = sum((counter[t] - total * w) ** 2 / (total * w) for t, w in weights.items())
    assert chi_square < 13.8, f"2 degrees of freedom, 0.1 %: {chi_square}, {counter}"


def test_without_weights_samples_of_all_buckets_are_equally_likely():
    counter = Counter()
    groups = sampler(group_size=2)
    for number in range(3000):
        counter.update(groups.group(number))
    counts = np.array([counter[sample] for sample in range(len(TASKS))])
    assert counts.sum() == 6000 and counts.min() > 60 and counts.max() < 140


def test_every_epoch_shows_each_sample_once_in_a_new_order():
    groups = sampler(tasks=["depth"] * 12, buckets=["wide"] * 12, group_size=4)
    draws = [sample for number in range(3 * 40) for sample in groups.group(number)]
    epochs = [draws[start : start + 12] for start in range(0, len(draws), 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs), "orders repeat"


def test_epochs_continue_across_blocks_and_cells():
    groups = sampler({"depth": 1.0, "reference": 1.0}, group_size=2)
    counter = Counter()
    for number in range(3 * BLOCK):
        counter.update(groups.group(number))
    for cell in (range(0, 15), range(15, 30), range(40, 60)):
        counts = [counter[sample] for sample in cell]
        assert max(counts) - min(counts) <= 1, "some were drawn again before others had their turn"
    assert not any(counter[sample] for sample in range(30, 40)), "a task without a weight was drawn"


def test_wrong_weights_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        sampler({"dept": 1.0})
    with pytest.raises(ValueError, match="no sample is left"):
        Sampler([], [], {}, 1, 0)
