"""The core on an NVIDIA GPU gives the numbers it gives on the CPU."""

import copy

import pytest
import torch

from vdot_core.networks import WanVace, vdot_tiny
from vdot_core.sampling import PRESETS, sample
from vdot_core.transport import entropic_ot

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(autouse=True)
def _exact_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def networks():
    network = WanVace(vdot_tiny())
    network.initialize_weights(torch.Generator().manual_seed(0))
    # A zero head and zero hints would make every comparison true.
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return network.eval(), copy.deepcopy(network).eval().cuda()


def inputs():
    x, text = torch.randn(2, 16, 3, 8, 8), torch.randn(2, 64, 128)
    contexts = torch.randn(2, 2, 96, 3, 8, 8)
    return x, torch.tensor([941.0, 120.0]), text, contexts


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_network_equals_the_cpu(dtype, tolerance):
    reference, network = networks()
    arguments = inputs()
    with torch.no_grad():
        expected = reference(*arguments)
        got = network.to(dtype)(*(value.cuda() for value in arguments)).float().cpu()
    assert (got - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("preset", PRESETS)
def test_sampling_equals_the_cpu(preset):
    reference, network = networks()
    noise, _, text, contexts = inputs()
    factory, solver, _ = PRESETS[preset]
    results = []
    with torch.no_grad():
        for module, device in ((reference, "cpu"), (network, "cuda")):
            condition = text.to(device), contexts.to(device)
            velocity = lambda x, t, module=module, condition=condition: module(x, t, *condition)  # noqa: E731
            generator = torch.Generator().manual_seed(3)
            results.append(sample(velocity, noise.to(device), factory(), solver, generator=generator).cpu())
    assert (results[1] - results[0]).norm() / results[0].norm() < 1e-3


@pytest.mark.parametrize("options", [{}, {"debias": True}, {"rho_a": 20.0}, {"cost": "l1"}])
def test_transport_equals_the_cpu(options):
    a, b = torch.randn(3, 200, 16), torch.randn(3, 180, 16) + 0.3
    common = {"eps": 2.0, "tol": 1e-5, "max_iter": 1000, **options}
    expected = entropic_ot(a, b, **common)
    got = entropic_ot(a.cuda(), b.cuda(), **common)
    assert got.converged.all()
    assert (got.grad_a.cpu() - expected.grad_a).norm() / expected.grad_a.norm() < 1e-3
    torch.testing.assert_close(got.value.cpu(), expected.value, rtol=1e-4, atol=1e-4)
