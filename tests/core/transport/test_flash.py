"""The flash-sinkhorn backend without a GPU: our translation of units and options, and when it is refused.

Its two primitives are stood in for by the formulas that the package documents; where the package is
installed, its own kernels run in Triton's interpreter.
"""

import importlib.util
import os
import subprocess
import sys
from math import inf
from types import ModuleType

import pytest
import torch

import vdot_core.transport.flash as flash
import vdot_core.transport.solver as solver
from vdot_core.transport import entropic_ot

CASES = {
    "balanced": {"eps": 0.3},
    "mean cost": {"eps": 0.05, "eps_mode": "mean_cost"},
    "semi-unbalanced": {"eps": 0.5, "rho_a": 2.0},
    "unbalanced": {"eps": 0.5, "rho_a": 2.0, "rho_b": 5.0},
    "debiased": {"eps": 0.3, "debias": True},
    "weights": {"eps": 0.5, "weights_a": torch.linspace(1, 2, 40), "weights_b": torch.linspace(1, 3, 30)},
}

INTERPRETED = """
import functools, torch, triton.runtime.interpreter as interpreter
patch_tensor = interpreter._patch_lang_tensor
def patch_tensor_for_numpy(tensor, *scope):  # numpy 2.4 makes no int of one-number arrays
    patch_tensor(tensor, *scope)
    tensor.__index__ = lambda self: self.handle.data.item()
interpreter._patch_lang_tensor = patch_tensor_for_numpy
torch.Tensor.is_cuda = property(lambda self: True)  # the package asks; the interpreter runs on the CPU
import flash_sinkhorn.kernels as kernels, flash_sinkhorn.kernels.sinkhorn_flashstyle_sqeuclid as steps
kernels.apply_plan_mat_flashstyle = functools.partial(kernels.apply_plan_mat_flashstyle, autotune=False)
steps.flashsinkhorn_lse = functools.partial(steps.flashsinkhorn_lse, autotune=False)
import vdot_core.transport.solver as solver
solver.why_not_flash = lambda device, cost: None
torch.manual_seed(0)
a, b = torch.randn(2, 40, 16), torch.randn(2, 30, 16) + 0.3
for options in ({"eps": 2.0}, {"eps": 3.0, "rho_a": 5.0, "rho_b": 5.0, "debias": True}):
    options |= {"tol": 1e-4, "max_iter": 40}
    ours = solver.entropic_ot(a, b, backend="torch", **options)
    theirs = solver.entropic_ot(a, b, backend="flash", **options)
    assert theirs.backend == "flash" and theirs.converged.all()
    torch.testing.assert_close(theirs.grad_a, ours.grad_a, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(theirs.value, ours.value, rtol=1e-4, atol=1e-4)
"""


def documented_lse(x, y, bias, eps, *, cost_scale=1.0, damping=1.0, allow_tf32=True):
    """out_i = -eps damping LSE_j(2 cost_scale x_i . y_j / eps + bias_j), as flash-sinkhorn documents it."""
    assert x.ndim == y.ndim == 2 and bias.ndim == 1 and not allow_tf32
    return -eps * damping * (2 * cost_scale * x @ y.T / eps + bias).logsumexp(1)


def documented_apply(x, y, f_hat, g_hat, log_a, log_b, mat, *, eps, axis, cost_scale=1.0, allow_tf32=False):
    """P @ mat with P_ij = a_i b_j exp((f_hat_i + g_hat_j + 2 cost_scale x_i . y_j) / eps)."""
    assert axis == 1 and mat.shape == y.shape and not allow_tf32
    exponent = (f_hat[:, None] + g_hat[None] + 2 * cost_scale * x @ y.T) / eps
    return (exponent + log_a[:, None] + log_b[None]).exp() @ mat


@pytest.fixture
def documented(monkeypatch):
    """The package's documented primitives in its place, and no demand for a GPU."""
    names = [
        "flash_sinkhorn",
        "flash_sinkhorn.kernels",
        "flash_sinkhorn.kernels.sinkhorn_flashstyle_sqeuclid",
    ]
    modules = {name: ModuleType(name) for name in names}
    modules[names[1]].apply_plan_mat_flashstyle = documented_apply
    modules[names[2]].flashsinkhorn_lse = documented_lse
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(solver, "why_not_flash", lambda device, cost: None)


def clouds(frames=3):
    return torch.randn(frames, 40, 16), torch.randn(frames, 30, 16) + 0.3


@pytest.mark.parametrize("case", CASES)
def test_both_backends_solve_the_same_problem(documented, case):
    a, b = clouds()
    options = {**CASES[case], "tol": 1e-5, "max_iter": 3000}
    ours = entropic_ot(a, b, backend="torch", **options)
    theirs = entropic_ot(a, b, backend="auto", **options)
    assert (ours.backend, theirs.backend) == ("torch", "flash")
    assert theirs.converged.all()
    scale = ours.grad_a.abs().max().item()
    torch.testing.assert_close(theirs.grad_a, ours.grad_a, rtol=0, atol=3e-4 * scale)
    torch.testing.assert_close(theirs.value, ours.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(theirs.eps, ours.eps)


def test_its_gradient_has_the_actual_row_mass(documented):
    """With relaxed rows their masses differ from the weights: grad = 2 (row a - P b), not 2 (w a - P b)."""
    a, b = clouds(frames=1)
    result = entropic_ot(a, b, eps=0.5, rho_a=1.0, max_iter=2, tol=1e-9, init="zeros", backend="flash")
    cost = (a[0].double()[:, None] - b[0].double()[None]).square().sum(-1)
    exponent = (result.f[0].double()[:, None] + result.g[0].double()[None] - cost) / 0.5
    plan = exponent.exp() / (40 * 30)
    expected = 2 * (plan.sum(1, keepdim=True) * a[0].double() - plan @ b[0].double())
    assert (plan.sum(1) * 40 - 1).abs().max() > 0.1
    torch.testing.assert_close(result.grad_a[0].double(), expected, rtol=1e-3, atol=1e-6)


def test_a_bad_frame_is_left_out(documented):
    a, b = clouds()
    a[1, 2, 3] = inf
    result = entropic_ot(a, b, eps=1.0, backend="flash")
    assert result.valid.tolist() == [True, False, True]
    assert (result.grad_a[1] == 0).all() and result.grad_a.isfinite().all()


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({}, True, "needs CUDA tensors, and the clouds are on cpu"),
        ({"device": "cuda"}, False, "pip install flash-sinkhorn"),
        ({"device": "cuda", "cost": "l1"}, True, "squared Euclidean cost only, and cost is 'l1'"),
        ({"device": "cuda"}, True, None),
    ],
)
def test_the_reason_why_it_cannot_be_used(monkeypatch, options, spec, message):
    monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: spec or None)
    device, cost = torch.device(options.get("device", "cpu")), options.get("cost", "sqeuclidean")
    reason = flash.why_not_flash(device, cost)
    assert reason is None if message is None else message in reason


def test_flash_refuses_and_auto_falls_to_torch_visibly():
    a, b = clouds()
    with pytest.raises(ValueError, match=r"'flash' needs CUDA tensors.*use backend='torch' or 'auto'"):
        entropic_ot(a, b, eps=1.0, backend="flash")
    assert entropic_ot(a, b, eps=1.0, backend="auto").backend == "torch"


@pytest.mark.skipif(
    not (importlib.util.find_spec("flash_sinkhorn") and importlib.util.find_spec("triton")),
    reason="needs the package flash-sinkhorn: pip install flash-sinkhorn",
)
def test_the_packages_own_kernels_interpreted():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    process = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr
