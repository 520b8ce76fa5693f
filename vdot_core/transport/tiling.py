"""How much of a kernel I x J is in memory at once, by kind of device.

Shape letters: B problems solved together, I J points, R rows of a chunk.
"""

import math
from dataclasses import dataclass

# So many numbers of kernels are in memory, a buffer for the others included: 28 MB on a CPU, 1 GB on a GPU.
KEPT_ELEMENTS = {"cpu": 7 << 20, "cuda": 1 << 28}
# A block of so many float32 numbers goes back to the system when it is freed (glibc keeps smaller ones), and
# what of it is not written to is not taken.
RETURNED_ELEMENTS = 1 << 23
# Of them so many at a time are computed: what fits the cache of a CPU, or a bounded share of a GPU's memory.
CHUNK_ELEMENTS = {"cpu": 1024 * 1600, "cuda": 1 << 26}
# A kernel is kept sparse if no more than this share of it matters; an entry is an int64 and a float32.
MAX_SHARE = 1 / 24
ENTRY_ELEMENTS = 3


@dataclass(frozen=True)
class Tiling:
    """Rows of a kernel [B, I, J] in chunks: the first ones stay in memory, the others pass through a buffer.

    Attributes:
        chunks: Slices of the rows.
        num_kept: Chunks that stay.
        row_elements: Numbers of one row, B J.
    """

    chunks: tuple[slice, ...]
    num_kept: int
    row_elements: int

    @classmethod
    def of(
        cls, device: str, num_problems: int, num_rows: int, num_columns: int, cost: str, *, once: bool = False
    ) -> "Tiling":
        """Lay a kernel out.

        Args:
            device: kind of device, 'cpu' or 'cuda'.
            num_problems, num_rows, num_columns: B, I and J.
            cost: 'sqeuclidean', or 'l1', whose chunks are half as large for the distances beside them.
            once: for a single pass: nothing stays.

        Returns:
            The layout.
        """
        row_elements = num_problems * num_columns
        rows = max(1, CHUNK_ELEMENTS[device] // (row_elements * (2 if cost == "l1" else 1)))
        rows = math.ceil(num_rows / math.ceil(num_rows / rows))
        starts = range(0, num_rows, rows)
        chunks = tuple(slice(start, min(start + rows, num_rows)) for start in starts)
        room = 0 if once else KEPT_ELEMENTS[device] // row_elements
        kept = len(chunks) if room >= num_rows else max(0, room // rows - 1)
        return cls(chunks, kept, row_elements)

    @property
    def streams(self) -> bool:
        """Whether some chunks are computed anew by every pass."""
        return self.num_kept < len(self.chunks)

    @property
    def buffers(self) -> tuple[int, ...]:
        """Rows of each buffer: one for every chunk that stays, and one for all others."""
        return tuple(rows.stop - rows.start for rows in self.chunks[: self.num_kept + 1])

    @property
    def elements(self) -> int:
        """Numbers of all buffers."""
        return sum(self.buffers) * self.row_elements


def group_size(device: str, num_frames: int, num_rows: int, num_columns: int) -> int:
    """Frames that are solved together: as many as have their kernels in memory, or all if none has.

    One frame at a time keeps it in a CPU's cache; a GPU wants many in one launch.
    """
    if device == "cpu":
        return 1
    return min(num_frames, KEPT_ELEMENTS[device] // (num_rows * num_columns) or num_frames)


def screens(device: str, num_problems: int, num_rows: int, num_columns: int, cost: str) -> bool:
    """Whether what matters of a kernel is looked for: where it is not kept, and one on a CPU.

    A CPU solves one problem at a time; a GPU's exponentials cost less than a search.
    """
    tiling = Tiling.of(device, num_problems, num_rows, num_columns, cost)
    return device == "cpu" and num_problems == 1 and tiling.streams


def sparse_place(device: str, num_problems: int, num_rows: int, num_columns: int, cost: str) -> slice:
    """Where a pass has the entries that it keeps sparse: behind the chunk they are taken from."""
    chunk = Tiling.of(device, num_problems, num_rows, num_columns, cost, once=True).elements
    start = chunk + chunk % 2  # an int64 starts at an even number
    return slice(start, start + ENTRY_ELEMENTS * int(MAX_SHARE * num_rows * num_columns))


def memory_elements(device: str, num_problems: int, num_rows: int, num_columns: int, cost: str) -> int:
    """Numbers of the memory in which a pass has its kernel, whole, in part or sparse."""
    size = (device, num_problems, num_rows, num_columns, cost)
    elements = Tiling.of(*size).elements
    if not screens(*size):
        return elements
    return max(elements, RETURNED_ELEMENTS, sparse_place(*size).stop)
