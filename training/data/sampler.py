"""Chooses the samples of a step: a pure function of (seed, step), independent of the number of processes.

Samples of one bucket (latent shape, references, ..) stack into a batch. A step is made of groups of one
bucket each; within a group every sample's task is drawn by its weight, and the task's samples of that bucket
come in a shuffled order, each once in an epoch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from vdot_core.text import described

logger = logging.getLogger("vdot")
BLOCK = 256
DRAWS, ORDERS = 1, 2


class Sampler:
    """Draws groups of samples.

    Args:
        tasks: Task of each sample. buckets: Bucket of each sample.
        weights: Task -> weight; empty: all samples equally. Tasks left out are not drawn.
        group_size: Samples of a group.
        seed: Of all draws.

    Attributes:
        tasks: Those of all samples.

    Raises:
        ValueError: There is no sample, or a weight names a task that no sample has.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        buckets: Sequence[Hashable],
        weights: Mapping[str, float],
        group_size: int,
        seed: int,
    ) -> None:
        self.group_size, self.seed = group_size, seed
        counts = Counter(tasks)
        weights = _checked(weights, counts)
        self.tasks = frozenset(counts)
        cells: dict[tuple, list[int]] = {}
        for sample, key in enumerate(zip(buckets, tasks, strict=True)):
            if weights.get(key[1], 0.0) > 0:
                cells.setdefault(key, []).append(sample)
        if not cells:
            raise ValueError("no sample is left to train on; look at the skipped rows and the task weights")
        self.cells = [np.array(samples) for samples in cells.values()]
        shares = np.array([weights[task] * len(own) / counts[task] for (_, task), own in cells.items()])
        names = list(dict.fromkeys(bucket for bucket, _ in cells))
        member = np.array([names.index(bucket) for bucket, _ in cells])
        odds = np.stack([np.where(member == number, shares, 0.0) for number in range(len(names))])
        self._bucket_edges = np.cumsum(odds.sum(1)) / odds.sum()
        # Row: bucket; the cumulative odds of the cells in it, 1 from its last cell on.
        self._cell_edges = np.cumsum(odds, axis=1) / odds.sum(1, keepdims=True)
        self._last_cell = np.array([np.flatnonzero(member == number)[-1] for number in range(len(names))])
        self._before = [np.zeros(len(self.cells), dtype=np.int64)]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def group(self, number: int) -> list[int]:
        """The samples of the group of that number, counted over the run.

        Args:
            number: From 0; a step of G groups has those from step * G on.

        Returns:
            `group_size` sample numbers, all of one bucket.
        """
        block, place = divmod(number, BLOCK)
        while len(self._before) <= block:
            counts = np.bincount(self._block(len(self._before) - 1).ravel(), minlength=len(self.cells))
            self._before.append(self._before[-1] + counts)
        cells = self._block(block)
        positions = self._before[block] + np.bincount(cells[:place].ravel(), minlength=len(self.cells))
        samples = []
        for cell in cells[place]:
            samples.append(self._sample(int(cell), int(positions[cell])))
            positions[cell] += 1
        return samples

    def _block(self, block: int) -> np.ndarray:
        """[BLOCK, group_size] cells of a stretch of groups."""
        rng = np.random.default_rng([self.seed, DRAWS, block])
        buckets = np.searchsorted(self._bucket_edges, rng.random(BLOCK), side="right")
        # Rounding may leave the last edge slightly below 1.
        buckets = np.minimum(buckets, len(self._bucket_edges) - 1)
        picks = rng.random((BLOCK, self.group_size))
        cells = (picks[..., None] >= self._cell_edges[buckets][:, None]).sum(-1)
        return np.minimum(cells, self._last_cell[buckets][:, None])

    def _sample(self, cell: int, count: int) -> int:
        """The count-th draw of a cell: each epoch is a new order of all its samples."""
        epoch, place = divmod(count, len(self.cells[cell]))
        if self._orders.get(cell, (None,))[0] != epoch:
            rng = np.random.default_rng([self.seed, ORDERS, cell, epoch])
            self._orders[cell] = epoch, rng.permutation(len(self.cells[cell]))
        return int(self.cells[cell][self._orders[cell][1][place]])


def check_tasks(names: Iterable[str], tasks: Collection[str], key: str) -> None:
    """Refuse, by ValueError, tasks that a configuration's key names and no sample has."""
    for task in names:
        if task not in tasks:
            near = get_close_matches(task, tasks, 1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            raise ValueError(
                f"{key} has {described(task)}, of which there is no sample; {hint} "
                f"There are {', '.join(sorted(tasks))}"
            )


def _checked(weights: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Weights of the tasks there are; without any, each task's number of samples."""
    if not weights:
        return {task: float(count) for task, count in counts.items()}
    check_tasks(weights, counts, "task_weights")
    unused = sorted(set(counts) - {task for task, weight in weights.items() if weight > 0})
    if unused:
        logger.info("tasks without a weight are not trained on: %s", ", ".join(unused))
    return dict(weights)
