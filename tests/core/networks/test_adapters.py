"""Adapters on one frozen base against full networks whose weights hold the same change."""

import copy

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from vdot_core.networks import NetworkRole, add_adapter
from vdot_core.networks.adapters import TARGETS, AdaptedLinear, adapter_parameters

CONFIG = SIZES["narrow heads"]
ALPHA, RANK = 6.0, 4


def adapted(*names: str, **options):
    """A random network with random adapters."""
    network = random_network(CONFIG)
    for name in names:
        add_adapter(network, name, RANK, ALPHA, **options)
        generator = torch.Generator().manual_seed(len(name))
        for parameter in adapter_parameters(network, name).values():
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def merged(network, *names: str):
    """The full network: W + sum of alpha / rank B A."""
    full = random_network(CONFIG)
    with torch.no_grad():
        for name in names:
            parameters = adapter_parameters(network, name)
            for layer in {one.rpartition(".")[0] for one in parameters}:
                change = parameters[f"{layer}.B"] @ parameters[f"{layer}.A"]
                full.get_submodule(layer).weight += ALPHA / RANK * change
    return full


@pytest.mark.parametrize("names", [(), ("one",), ("another",), ("one", "another")])
def test_a_role_is_the_network_whose_weights_hold_the_change(names):
    network, arguments = adapted("one", "another"), inputs(CONFIG)
    got = NetworkRole(network, *names)(*arguments)
    assert relative(got, merged(network, *names)(*arguments)) < 1e-5
    if names:
        assert relative(got, random_network(CONFIG)(*arguments)) > 1e-2


def test_new_adapters_change_nothing_and_names_of_the_base_stay():
    network, plain = random_network(CONFIG), random_network(CONFIG)
    add_adapter(network, "one", RANK)
    assert all(
        float(p.abs().max()) > 0 for n, p in adapter_parameters(network, "one").items() if n[-1] == "A"
    )
    arguments = inputs(CONFIG)
    assert torch.equal(NetworkRole(network, "one")(*arguments), plain(*arguments))
    base = {n: p for n, p in network.named_parameters() if ".adapters." not in n}
    assert base.keys() == dict(plain.named_parameters()).keys()
    assert not any(parameter.requires_grad for parameter in base.values())


@pytest.mark.parametrize("every", [0, 1, 3])
def test_gradients_are_those_of_the_full_weights_although_roles_switch_before_the_backward_pass(every):
    """dL/dA = (alpha / rank) B' dL/dW and dL/dB = (alpha / rank) dL/dW A', also where blocks run again."""
    network, arguments = adapted("one", "another"), inputs(CONFIG)
    network.gradient_checkpointing(every)
    full = merged(network, "one")
    full(*arguments).square().sum().backward()
    role = NetworkRole(network, "one").requires_grad_()
    loss = role(*arguments).square().sum()
    with torch.no_grad():
        NetworkRole(network, "another")(*arguments)
        NetworkRole(network)(*arguments)
    with network.adapted.activated("another"):
        loss.backward()
    parameters = dict(role.named_parameters())
    assert parameters
    for layer in {name.rpartition(".")[0] for name in parameters}:
        slope, a, b = (
            full.get_submodule(layer).weight.grad,
            parameters[f"{layer}.A"],
            parameters[f"{layer}.B"],
        )
        assert relative(a.grad, ALPHA / RANK * b.T @ slope) < 1e-4, layer
        assert relative(b.grad, ALPHA / RANK * slope @ a.T) < 1e-4, layer
    others = {n: p for n, p in network.named_parameters() if ".adapters.one." not in n}
    assert all(parameter.grad is None for parameter in others.values())


def test_gradients_reach_the_input_through_a_role_whose_adapter_is_frozen():
    network = adapted("one")
    x, *rest = inputs(CONFIG)
    slopes = []
    for call in (NetworkRole(network, "one").requires_grad_(False), merged(network, "one")):
        tensor = x.clone().requires_grad_()
        call(tensor, *rest).square().sum().backward()
        slopes.append(tensor.grad)
    assert relative(*slopes) < 1e-4


def test_targets_choose_the_layers():
    network = adapted("one", targets=["ffn", "after_proj"])
    layers = {name for name, module in network.named_modules() if isinstance(module, AdaptedLinear)}
    backbone = {f"blocks.{n}.ffn.{k}" for n in range(4) for k in (0, 2)}
    vace = {f"vace_blocks.{n}.{name}" for n in range(2) for name in ("ffn.0", "ffn.2", "after_proj")}
    assert layers == backbone | vace
    assert {name.split(".")[2] for name in adapter_parameters(adapted("one"), "one")} == {*TARGETS}


def test_a_rank_beyond_a_layers_sides_is_cut_and_its_factor_is_that_of_the_rank_used():
    network = random_network(CONFIG)
    add_adapter(network, "one", 1000, 32.0)
    layer = network.blocks[0].ffn[0]
    assert tuple(layer.adapters["one"].A.shape) == (64, 64) and layer.adapters["one"].scale == 32 / 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"targets": ["self_atn"]}, "no layer is named 'self_atn'; expected some of after_proj, before_proj"),
        ({"name": "one"}, "already"),
    ],
)
def test_mistakes_are_refused(options, message):
    network = adapted("one")
    with pytest.raises(ValueError, match=message):
        add_adapter(network, **{"name": "two", "rank": 4, **options})


def test_a_copy_of_an_adapted_network_has_switches_of_its_own():
    network, arguments = adapted("one"), inputs(CONFIG)
    network.gradient_checkpointing(1)
    slopes = []
    for one in (copy.deepcopy(network), network):
        role = NetworkRole(one, "one").requires_grad_()
        role(*arguments).square().sum().backward()
        slopes.append([parameter.grad for parameter in role.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*slopes, strict=True))
