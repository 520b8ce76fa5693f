"""Estimates the memory of a solve from its sizes.

Shape letters: B problems solved together, F frames, I J points, D coordinates.
"""

from .tiling import Tiling, group_size

FP32 = 4
# Of each coordinate of the clouds solved together: while they are centered and scaled in float64, for
# l1 sorted too, and while their kernels are there.
PREPARING_BYTES, SOLVING_BYTES = {"sqeuclidean": 30, "l1": 78}, 36
# Of each point of theirs: weights, potentials, sums and errors, in float32 and float64.
POINT_BYTES = 100
# Of each coordinate, and of each point, of all clouds: the results, twice while they are joined, and weights.
RESULT_BYTES, FRAME_BYTES = 8, 32
# Of each point and step of Anderson's history: two differences and a weighted one, in float64.
HISTORY_BYTES = 24
# Further chunks for the l1 cost: distances, or the signs of differences.
L1_CHUNKS = 1


def working_bytes(
    num_frames: int,
    num_a: int,
    num_b: int,
    num_dims: int,
    *,
    device: str,
    backend: str = "torch",
    cost: str = "sqeuclidean",
    debias: bool = False,
    anderson: int = 8,
) -> int:
    """Most memory that `entropic_ot` takes at one time, beyond its arguments.

    Args:
        num_frames, num_a, num_b, num_dims: F, I, J and D.
        device: kind of device, 'cpu' or 'cuda'.
        backend: 'torch' or 'flash', as a result says it; where 'auto' may become either, 'torch' takes more.
        cost, debias, anderson: as in `entropic_ot`.

    Returns:
        Bytes of tensors: an upper bound, close where the kernel is the most of it. What an allocator loses
        between them, and a library's own workspace, are not in it.
    """
    together = group_size(device, num_frames, num_a, num_b)
    # A debiased solve takes the clouds' own kernels in turn, each in the memory of the one before.
    pairs = [(num_a, num_b)] + ([(num_a, num_a), (num_b, num_b)] if debias else [])
    kernel = 0
    if backend == "torch":
        kernel = max(_kernel_bytes(device, together, *pair, cost) for pair in pairs)
    points = num_a + num_b
    preparing = together * points * num_dims * PREPARING_BYTES[cost]
    solving = kernel + together * (points * num_dims * SOLVING_BYTES + num_b * anderson * HISTORY_BYTES)
    results = num_frames * (num_a * num_dims * RESULT_BYTES + points * FRAME_BYTES)
    return results + together * points * POINT_BYTES + max(preparing, solving)


def _kernel_bytes(device: str, num_problems: int, num_rows: int, num_columns: int, cost: str) -> int:
    """Of a pass of the torch backend over the kernels of problems solved together."""
    buffers = Tiling.of(device, num_problems, num_rows, num_columns, cost).buffers
    return FP32 * (sum(buffers) + (L1_CHUNKS * buffers[0] if cost == "l1" else 0))
