"""The optimizer equals torch's, and keeps no first moment where beta1 is 0."""

import pytest
import torch

from training.engine.adamw import AdamW


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.95)])
def test_equals_torch(betas):
    start = [torch.randn(5, 3), torch.randn(7), torch.randn(2, 2)]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    options = {"lr": 0.03, "betas": betas, "weight_decay": 0.1}
    mine, reference = AdamW(ours, **options), torch.optim.AdamW(theirs, **options)
    for step in range(25):
        for a, b in zip(ours, theirs, strict=True):
            # The last parameter has a gradient in some steps only, as the head of the fake score has.
            a.grad = None if a.shape == (2, 2) and step % 3 else torch.randn(a.shape) * 10 ** (step % 4 - 2)
            b.grad = None if a.grad is None else a.grad.clone()
        mine.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_state_is_one_tensor_without_a_first_moment():
    weight = torch.nn.Parameter(torch.randn(4))
    tensors = [v for v in AdamW([weight]).state[weight].values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 1
    with pytest.raises(ValueError, match="betas"):
        AdamW([weight], betas=(1.0, 0.9))
