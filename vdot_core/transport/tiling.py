"""Memory layout of a kernel I x J, by kind of device.

Shape letters: B problems solved together, I J points, R rows of a chunk.
"""

import math
from dataclasses import dataclass

# Kernels up to this number of elements are kept: 168 MB on a CPU, 1 GB on a GPU; a 480p frame has 39 million.
# Keeping makes a solve with eps 0.05 of the mean cost 1.4 to 2.4 times faster than streaming, one CPU thread.
KEPT_ELEMENTS = {"cpu": 40 << 20, "cuda": 1 << 28}
# Elements computed at a time: a chunk that fits a CPU's cache, or a bounded share of a GPU's memory.
CHUNK_ELEMENTS = {"cpu": 1024 * 1600, "cuda": 1 << 26}


@dataclass(frozen=True)
class Tiling:
    """Rows of a kernel [B, I, J] in chunks, which are all kept, or all pass through one buffer.

    Attributes:
        chunks: Slices of the rows; the first is the largest.
        buffered: True if every chunk has a buffer.
        row_elements: Numbers of one row, B J.
    """

    chunks: tuple[slice, ...]
    buffered: bool
    row_elements: int

    @classmethod
    def of(cls, device: str, num_problems: int, num_rows: int, num_columns: int, cost: str) -> "Tiling":
        """Lay a kernel out.

        Args:
            device: kind of device, 'cpu' or 'cuda'.
            num_problems, num_rows, num_columns: B, I and J.
            cost: 'sqeuclidean', or 'l1', whose chunks are half as large to make room for the distances.

        Returns:
            The layout.
        """
        row_elements = num_problems * num_columns
        rows = max(1, CHUNK_ELEMENTS[device] // (row_elements * (2 if cost == "l1" else 1)))
        rows = math.ceil(num_rows / math.ceil(num_rows / rows))
        starts = range(0, num_rows, rows)
        chunks = tuple(slice(start, min(start + rows, num_rows)) for start in starts)
        return cls(chunks, num_rows * row_elements <= KEPT_ELEMENTS[device], row_elements)

    @property
    def buffers(self) -> tuple[int, ...]:
        """Elements of each buffer."""
        chunks = self.chunks if self.buffered else self.chunks[:1]
        return tuple((rows.stop - rows.start) * self.row_elements for rows in chunks)


def group_size(device: str, num_frames: int, num_rows: int, num_columns: int) -> int:
    """Frames that are solved together: as many as have their kernels in memory, or all if none has.

    One frame at a time keeps it in a CPU's cache; a GPU wants many in one launch.
    """
    if device == "cpu":
        return 1
    return min(num_frames, KEPT_ELEMENTS[device] // (num_rows * num_columns) or num_frames)
