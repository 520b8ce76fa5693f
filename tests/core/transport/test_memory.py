"""What a solve holds in memory: as much as it is said to, and never two passes at once."""

import tracemalloc

import pytest
import torch

import vdot_core.transport.memory as memory_module
import vdot_core.transport.solver as solver_module
import vdot_core.transport.sparse as sparse_module
import vdot_core.transport.tiling as tiling_module
from tests.support.memory import peak_bytes
from vdot_core.transport import entropic_ot, working_bytes
from vdot_core.transport.sparse import SparseKernel
from vdot_core.transport.tiling import Tiling, group_size

NUM_POINTS, NUM_DIMS = 700, 4
# Dense enough to be kept whole, or in part; sharp enough that few entries matter.
BROAD, SHARP = {"eps": 0.05, "eps_mode": "mean_cost"}, {"eps": 0.05}
KEPT_IN_PART, ALL_STREAMED = NUM_POINTS * 400, 0


def clouds(frames=1, num_b=NUM_POINTS):
    return torch.randn(frames, NUM_POINTS, NUM_DIMS), torch.randn(frames, num_b, NUM_DIMS)


@pytest.fixture
def room(monkeypatch):
    """Set how many numbers of kernels a device keeps, and how many it computes at a time."""

    def set_room(kept, chunk=NUM_POINTS * 60):
        for device in ("cpu", "cuda"):
            monkeypatch.setitem(tiling_module.KEPT_ELEMENTS, device, kept)
            monkeypatch.setitem(tiling_module.CHUNK_ELEMENTS, device, chunk)
        monkeypatch.setattr(tiling_module, "RETURNED_ELEMENTS", 0)
        for module in (memory_module, sparse_module):
            monkeypatch.setattr(module, "SEARCHED_ELEMENTS", NUM_POINTS)

    return set_room


def test_debiasing_keeps_one_pass_at_a_time(room):
    kept = NUM_POINTS**2
    room(kept)
    a, b = clouds()
    options = {**BROAD, "tol": 1e-9, "max_iter": 6}
    plain, debiased = (peak_bytes(lambda d=d: entropic_ot(a, b, debias=d, **options)) for d in (False, True))
    assert plain > 4 * kept, "the kernel was not kept, so that nothing was tested"
    assert debiased < plain + 0.2 * 4 * kept


@pytest.mark.parametrize(
    ("kept", "chunk_rows", "options", "tight"),
    [
        (NUM_POINTS**2, 60, BROAD, 1.3),
        (KEPT_IN_PART, 60, {**BROAD, "debias": True}, 1.5),
        (ALL_STREAMED, 30, {**SHARP, "debias": True}, 1.8),
        (NUM_POINTS**2, 60, {**BROAD, "cost": "l1"}, 1.3),
        (KEPT_IN_PART, 60, {**BROAD, "cost": "l1", "debias": True}, 1.4),
    ],
)
def test_a_cpu_takes_what_is_said(room, kept, chunk_rows, options, tight):
    room(kept, NUM_POINTS * chunk_rows)
    a, b = clouds(num_b=600)
    taken = peak_bytes(lambda: entropic_ot(a, b, tol=1e-9, max_iter=6, **options))
    named = {name: options[name] for name in ("cost", "debias") if name in options}
    said = working_bytes(1, NUM_POINTS, 600, NUM_DIMS, device="cpu", **named)
    assert taken <= said <= tight * taken


@pytest.mark.parametrize("options", [{"debias": True}, {"cost": "l1"}])
def test_frames_in_groups_take_what_is_said_of_a_gpu(monkeypatch, room, options):
    """A GPU's layout, on this device: of five frames two at a time have their kernels in memory."""
    room(2 * NUM_POINTS**2, chunk=NUM_POINTS * 200)
    monkeypatch.setattr(solver_module, "group_size", lambda device, *sizes: group_size("cuda", *sizes))
    assert group_size("cuda", 5, NUM_POINTS, NUM_POINTS) == 2
    a, b = clouds(frames=5)
    b[1] = a[1]  # done before the others, which leave the group and need their pass made again
    taken = peak_bytes(lambda: entropic_ot(a, b, tol=1e-3, max_iter=6, **BROAD, **options))
    said = working_bytes(5, NUM_POINTS, NUM_POINTS, NUM_DIMS, device="cuda", **options)
    assert 4 * 2 * NUM_POINTS**2 < taken <= said <= 1.4 * taken


def test_a_gpu_keeps_the_kernels_of_a_480p_clip_in_groups():
    """Six frames of 6240 points are 0.87 GiB; more frames, or the self-transports, come after them."""
    size = {"num_a": 6240, "num_b": 6240, "num_dims": 16, "device": "cuda"}
    kept, clouds_ = 4 * 6 * 6240**2, 4 * 2 * 6240 * 16
    six, clip, debiased = (working_bytes(n, **size, debias=d) for n, d in ((6, 0), (21, 0), (21, 1)))
    assert kept < six < 1.2 * kept
    assert six < clip < six + 15 * 3 * clouds_
    assert debiased == clip
    assert working_bytes(21, **size, backend="flash") < clip / 10
    larger = working_bytes(1, **{**size, "num_b": 12480}, debias=True)
    assert larger > 4 * 12480**2 > working_bytes(1, **{**size, "num_b": 12480})


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cost", ["sqeuclidean", "l1"])
@pytest.mark.parametrize(
    "size", [(1, 1, 1), (1, 1560, 1560), (1, 6240, 6240), (6, 6240, 6241), (2, 20_000, 17)]
)
def test_chunks_are_all_rows_and_their_buffers_within_bounds(device, cost, size):
    tiling = Tiling.of(device, *size, cost)
    rows = [row for chunk in tiling.chunks for row in range(chunk.start, chunk.stop)]
    assert rows == list(range(size[1]))
    assert tiling.elements <= tiling_module.KEPT_ELEMENTS[device]
    assert tiling.streams == (size[0] * size[1] * size[2] > tiling_module.KEPT_ELEMENTS[device])


def sparse_case(num_rows=300, num_columns=200):
    """A kernel of which one entry in thirty matters, and the factors' origin."""
    kernel = torch.rand(1, num_rows, num_columns)
    kernel *= torch.rand(1, num_rows, num_columns) < 1 / 30
    kernel[0, 7] = 0
    return kernel, SparseKernel(torch.empty(3 * num_rows * num_columns // 24))


@pytest.mark.parametrize("searched", [1, 450, 1 << 18])
def test_sparse_products_are_the_dense_ones_however_they_are_cut(monkeypatch, searched):
    monkeypatch.setattr(sparse_module, "SEARCHED_ELEMENTS", searched)
    kernel, sparse = sparse_case()
    for rows in kernel.split(128, dim=1):
        assert sparse.add(rows)
    sparse.finish(torch.zeros(1, 300), torch.zeros(1, 200))
    left, right = torch.rand(1, 300), torch.rand(1, 200, 3)
    torch.testing.assert_close(sparse.times(right), kernel @ right)
    torch.testing.assert_close(sparse.column_sums(left), (left[:, None] @ kernel)[:, 0])


def test_looking_for_what_matters_takes_little_beside_the_chunk():
    """numpy, which tells its memory to tracemalloc, and not torch, holds the places that were found."""
    chunk = torch.ones(1, 256, 8192)
    sparse = SparseKernel(torch.empty(3 * chunk.numel()))
    tracemalloc.start()
    try:
        assert sparse.add(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sparse.size == chunk.numel()
    assert peak < 3 * 8 * sparse_module.SEARCHED_ELEMENTS < 8 * chunk.numel()
