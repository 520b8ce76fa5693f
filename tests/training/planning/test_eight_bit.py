"""The plan of optimizer states in 8 bits: the bytes that the optimizer holds, and what a step of it takes."""

import pytest
import torch

from tests.training.planning.test_counts import peak_bytes
from training.engine.adamw import AdamW
from training.methods.programs import distill_config
from training.planning.arguments import PlanArguments
from training.planning.memory import EIGHT_BIT_STEP, states
from training.planning.plan import plan_budget
from training.planning.sizes import Sizes
from vdot_core.networks import PRESETS, Discriminator, WanVace, default_taps


def _config(preset="vdot_tiny", **optim):
    return distill_config({"model": {"preset": preset}, "optim": {"state_bits": 8, **optim}})


@pytest.fixture
def torchao():
    """Skips where the package is missing."""
    return pytest.importorskip("torchao", reason="needs the package torchao: pip install torchao")


@pytest.mark.parametrize("preset", ["vdot_tiny", "wan_vace_14b"])
@pytest.mark.parametrize("betas", [[0.0, 0.999], [0.9, 0.999]])
def test_bytes_are_those_of_the_optimizer(torchao, preset, betas):
    config, network = _config(preset, betas=betas), PRESETS[preset]()
    taps = default_taps(network.num_layers)
    modules = [WanVace(network, device="meta"), Discriminator.for_network(network, len(taps), device="meta")]
    sizes = []
    for module in modules:
        optimizer = AdamW(module.parameters(), betas=tuple(betas), state_bits=8)
        tensors = (value for state in optimizer.state.values() for value in state.values())
        sizes.append(sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor)))
    parts = states(Sizes.of(network, config), config).parts
    moments = {name: size for name, size in parts.items() if "8 bits" in name}
    assert set(moments.values()) == {sizes[0]} and len(moments) == 2
    head = sum(4 * p.numel() for p in modules[1].parameters())
    assert parts["discriminator, weights and moments"] == head + sizes[1]


def test_a_step_takes_what_the_plan_says(torchao):
    weight = torch.nn.Parameter(torch.randn(512, 512))
    weight.grad = torch.randn_like(weight)
    optimizer = AdamW([weight], betas=(0.9, 0.999), state_bits=8)
    optimizer.step()
    num_bytes = peak_bytes(optimizer.step) / weight.numel()
    assert 0.9 * EIGHT_BIT_STEP < num_bytes <= EIGHT_BIT_STEP * 1.01


def test_8_bits_reduce_the_total_by_three_quarters_of_the_moments():
    short, full = (plan_budget(_config("wan_vace_14b", state_bits=b), PlanArguments()) for b in (8, 32))
    moments = [sum(s for n, s in b.states.parts.items() if "moment," in n or n.endswith("moment"))
               for b in (short, full)]  # fmt: skip
    assert moments[0] == pytest.approx(moments[1] * (1 + 4 / 256) / 4, rel=1e-3)
    assert short.total < full.total - 0.7 * moments[1] / short.shards
