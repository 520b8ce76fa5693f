"""flash-sinkhorn on an NVIDIA GPU: the same problem solved as by torch and by POT in float64."""

import importlib.util

import ot
import pytest
import torch

from vdot_core.transport import entropic_ot

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.skipif(
        importlib.util.find_spec("flash_sinkhorn") is None,
        reason="needs the package flash-sinkhorn: pip install flash-sinkhorn",
    ),
]


def clouds(frames=2, num_a=390, num_b=260):
    a, b = torch.randn(frames, num_a, 16), torch.randn(frames, num_b, 16) + 0.3
    return a.cuda(), b.cuda()


def relative(x, y):
    return ((x.double() - y.double()).norm() / y.double().norm()).item()


def test_gradient_equals_pot_in_float64():
    a, b = clouds()
    eps = 1.0
    result = entropic_ot(a, b, eps=eps, tol=1e-5, max_iter=2000, backend="flash")
    assert result.backend == "flash" and result.converged.all()
    for frame in range(2):
        x, y = a[frame].double().cpu(), b[frame].double().cpu()
        cost = (x[:, None] - y[None]).square().sum(-1)
        weights = [torch.full((n,), 1 / n, dtype=torch.float64).numpy() for n in cost.shape]
        plan = ot.bregman.sinkhorn_log(*weights, cost.numpy(), eps, numItermax=20_000, stopThr=1e-12)
        plan = torch.from_numpy(plan)
        expected = 2 * (plan.sum(1, keepdim=True) * x - plan @ y)
        assert relative(result.grad_a[frame].cpu(), expected) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0.05, "eps_mode": "mean_cost"},
        {"eps": 2.0, "rho_a": 10.0},
        {"eps": 2.0, "rho_a": 10.0, "rho_b": 20.0},
        {"eps": 2.0, "debias": True},
    ],
)
def test_both_backends_agree(options):
    a, b = clouds()
    options = {**options, "tol": 1e-5, "max_iter": 2000}
    ours, theirs = (entropic_ot(a, b, backend=backend, **options) for backend in ("torch", "flash"))
    assert ours.converged.all() and theirs.converged.all()
    assert relative(theirs.grad_a, ours.grad_a) < 1e-3
    torch.testing.assert_close(theirs.value, ours.value, rtol=1e-4, atol=1e-4)


def test_auto_takes_it_for_the_squared_cost_and_torch_for_the_other():
    a, b = clouds()
    assert entropic_ot(a, b, eps=1.0).backend == "flash"
    assert entropic_ot(a, b, eps=1.0, cost="l1").backend == "torch"


def test_a_bad_frame_is_left_out():
    a, b = clouds()
    a[1, 2, 3] = float("nan")
    result = entropic_ot(a, b, eps=1.0, backend="flash")
    assert result.valid.tolist() == [True, False]
    assert (result.grad_a[1] == 0).all() and result.grad_a.isfinite().all()
