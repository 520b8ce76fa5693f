"""The entries of a kernel that float32 sums can see: at a small eps one in a hundred, or fewer.

Screening by the potentials, and going back to the whole kernel when they have moved, is Schmitzer's
("Stabilized sparse scaling algorithms for entropy regularized transport problems", 2019). Letters: I J
points, R rows of a chunk, D columns of a factor. Potentials are in units of eps.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from .gibbs import MAX_DRIFT, MIN_EXPONENT
from .tiling import ENTRY_ELEMENTS

FLOOR = math.exp(MIN_EXPONENT + 1)
# So many numbers are searched at a time: the places of those found take 8 bytes each, twice.
SEARCHED_ELEMENTS = 1 << 17


class SparseKernel:
    """Entries of one problem's K = exp(f0 + g0 - C) above `FLOOR`, on a CPU, filled chunk by chunk.

    It stands for the kernel at every g within `MAX_DRIFT` of g0: what is left out stays below float32's
    resolution. The entries lie in `memory`, flat and float32, of which one takes `ENTRY_ELEMENTS` numbers.
    """

    def __init__(self, memory: torch.Tensor):
        room = len(memory) // ENTRY_ELEMENTS
        self.columns, self.values = memory[: 2 * room].view(torch.int64), memory[2 * room : 3 * room]
        self.size, self.counts = 0, []
        self.f0, self.g0 = None, None

    def add(self, chunk: torch.Tensor) -> bool:
        """Take the next rows [1, R, J]; False if the kernel has turned out too dense."""
        num_columns = chunk.shape[2]
        for rows in chunk[0].split(max(1, SEARCHED_ELEMENTS // num_columns)):
            entries = rows.flatten()
            # numpy's flatnonzero is three times faster than torch's nonzero.
            places = torch.from_numpy(np.flatnonzero((entries > FLOOR).numpy()))
            own = slice(self.size, self.size + len(places))
            if own.stop > len(self.values):
                return False
            torch.remainder(places, num_columns, out=self.columns[own])
            torch.take(entries, places, out=self.values[own])
            self.counts.append(torch.bincount(places // num_columns, minlength=len(rows)))
            self.size = own.stop
        return True

    def finish(self, f0: torch.Tensor, g0: torch.Tensor) -> None:
        """Close the kernel, whose chunks were computed at f0 [1, I] and g0 [1, J]."""
        self.f0, self.g0, self.counts = f0, g0, torch.cat(self.counts)
        self.columns, self.values = self.columns[: self.size], self.values[: self.size]
        ends = self.counts.cumsum(0)
        self.starts = ends - self.counts
        self.parts = _parts(ends)

    def covers(self, g: torch.Tensor) -> bool:
        """Whether the entries suffice at g [1, J]."""
        return bool((g - self.g0).abs().max() <= MAX_DRIFT)

    def times(self, right: torch.Tensor) -> torch.Tensor:
        """[1, I, D] K right, for right [1, J, D]."""
        columns, weights = self.columns, self.values
        return F.embedding_bag(columns, right[0], self.starts, mode="sum", per_sample_weights=weights)[None]

    def column_sums(self, left: torch.Tensor) -> torch.Tensor:
        """[1, J] left K, for left [1, I]."""
        sums = torch.zeros_like(self.g0[0])
        for rows, own in self.parts:
            size = own.stop - own.start
            gains = torch.repeat_interleave(left[0, rows], self.counts[rows], output_size=size)
            sums.scatter_add_(0, self.columns[own], gains.mul_(self.values[own]))
        return sums[None]


def _parts(ends: torch.Tensor) -> list[tuple[slice, slice]]:
    """Slices of rows and of their entries, which end at `ends` [I], few enough at a time."""
    edges = [0, *ends.tolist()]
    targets = torch.tensor(range(SEARCHED_ELEMENTS, edges[-1], SEARCHED_ELEMENTS), dtype=ends.dtype)
    bounds = sorted({0, *torch.searchsorted(ends, targets).add(1).tolist(), len(ends)})
    return [(slice(i, j), slice(edges[i], edges[j])) for i, j in itertools.pairwise(bounds)]
