"""A transport takes the predicted memory of an NVIDIA GPU."""

import pytest
import torch

from vdot_core.transport import entropic_ot, working_bytes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("options", [{}, {"debias": True}, {"cost": "l1"}])
def test_the_torch_backend_takes_the_predicted_memory(options):
    """Eight frames of 6240 points: six at a time have their kernels in memory, then two."""
    a, b = (torch.randn(8, 6240, 16, device="cuda") for _ in range(2))
    arguments = {"eps": 0.05, "eps_mode": "mean_cost", "max_iter": 5, "backend": "torch", **options}
    entropic_ot(a[:, :64], b[:, :64], **arguments)  # libraries take their workspaces
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    entropic_ot(a, b, **arguments)
    peak = torch.cuda.max_memory_allocated() - before
    predicted = working_bytes(8, 6240, 6240, 16, device="cuda", **options)
    assert 4 * 6 * 6240**2 < peak <= predicted <= 1.3 * peak
