"""The training log's memory of an NVIDIA GPU."""

import pytest
import torch

from training.engine.progress import GIB, memory_gib

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def test_the_peak_is_that_since_the_last_call():
    device = torch.device("cuda", torch.cuda.current_device())
    memory_gib(device)
    tensor = torch.zeros(2**26, dtype=torch.uint8, device=device)
    allocated = torch.cuda.memory_allocated(device) / GIB
    for_a_moment = torch.zeros(2**28, dtype=torch.uint8, device=device)
    del for_a_moment
    assert memory_gib(device) == pytest.approx(allocated + 0.25, abs=1e-3)
    assert memory_gib(device) == pytest.approx(allocated, abs=1e-3) and allocated * GIB >= tensor.numel()
