"""Memory of a solve: as predicted, and never two passes at once."""

import pytest
import torch

import vdot_core.transport.solver as solver_module
import vdot_core.transport.tiling as tiling_module
from tests.support.memory import peak_bytes
from vdot_core.transport import entropic_ot, working_bytes
from vdot_core.transport.tiling import Tiling, group_size

NUM_POINTS, NUM_DIMS = 700, 4
OPTIONS = {"eps": 0.05, "eps_mode": "mean_cost"}


def clouds(frames=1, num_b=NUM_POINTS):
    return torch.randn(frames, NUM_POINTS, NUM_DIMS), torch.randn(frames, num_b, NUM_DIMS)


@pytest.fixture
def room(monkeypatch):
    """Set how many numbers of kernels a device keeps, and how many it computes at a time."""

    def set_room(num_elements, chunk=NUM_POINTS * 60):
        for device in ("cpu", "cuda"):
            monkeypatch.setitem(tiling_module.KEPT_ELEMENTS, device, num_elements)
            monkeypatch.setitem(tiling_module.CHUNK_ELEMENTS, device, chunk)

    return set_room


def test_debiasing_keeps_one_pass_at_a_time(room):
    num_elements = NUM_POINTS**2
    room(num_elements)
    a, b = clouds()
    options = {**OPTIONS, "tol": 1e-9, "max_iter": 6}
    plain, debiased = (peak_bytes(lambda d=d: entropic_ot(a, b, debias=d, **options)) for d in (False, True))
    assert plain > 4 * num_elements, "the kernel was not kept, so that nothing was tested"
    assert debiased < plain + 0.2 * 4 * num_elements


@pytest.mark.parametrize(
    ("num_elements", "chunk_rows", "options", "tight"),
    [
        (NUM_POINTS**2, 60, OPTIONS, 1.3),
        (0, 60, {**OPTIONS, "debias": True}, 1.7),
        (NUM_POINTS**2, 60, {**OPTIONS, "cost": "l1"}, 1.3),
        (0, 60, {**OPTIONS, "cost": "l1", "debias": True}, 1.6),
    ],
)
def test_a_cpu_takes_the_predicted_memory(room, num_elements, chunk_rows, options, tight):
    room(num_elements, NUM_POINTS * chunk_rows)
    a, b = clouds(num_b=600)
    peak = peak_bytes(lambda: entropic_ot(a, b, tol=1e-9, max_iter=6, **options))
    named = {name: options[name] for name in ("cost", "debias") if name in options}
    predicted = working_bytes(1, NUM_POINTS, 600, NUM_DIMS, device="cpu", **named)
    assert peak <= predicted <= tight * peak


@pytest.mark.parametrize("options", [{"debias": True}, {"cost": "l1"}])
def test_frames_in_groups_take_the_predicted_memory_of_a_gpu(monkeypatch, room, options):
    """A GPU's layout, on this device: of five frames two at a time have their kernels in memory."""
    room(2 * NUM_POINTS**2, chunk=NUM_POINTS * 200)
    monkeypatch.setattr(solver_module, "group_size", lambda device, *sizes: group_size("cuda", *sizes))
    assert group_size("cuda", 5, NUM_POINTS, NUM_POINTS) == 2
    a, b = clouds(frames=5)
    b[1] = a[1]  # done before the others, which leave the group and need their pass made again
    peak = peak_bytes(lambda: entropic_ot(a, b, tol=1e-3, max_iter=6, **OPTIONS, **options))
    predicted = working_bytes(5, NUM_POINTS, NUM_POINTS, NUM_DIMS, device="cuda", **options)
    assert 4 * 2 * NUM_POINTS**2 < peak <= predicted <= 1.4 * peak


def test_a_gpu_keeps_the_kernels_of_a_480p_clip_in_groups():
    """Six frames of 6240 points are 0.87 GiB; more frames, or the self-transports, come after them."""
    size = {"num_a": 6240, "num_b": 6240, "num_dims": 16, "device": "cuda"}
    kernels, clouds_ = 4 * 6 * 6240**2, 4 * 2 * 6240 * 16
    six, clip, debiased = (working_bytes(n, **size, debias=d) for n, d in ((6, 0), (21, 0), (21, 1)))
    assert kernels < six < 1.2 * kernels
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
    assert sum(tiling.buffers) <= tiling_module.KEPT_ELEMENTS[device]
    assert tiling.buffered == (size[0] * size[1] * size[2] <= tiling_module.KEPT_ELEMENTS[device])
