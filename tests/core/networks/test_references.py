"""The network equals ComfyUI's and diffusers' own, forwards and backwards; small breakages are seen."""

from dataclasses import replace

import pytest
import torch

from tests.core.networks.helpers import (
    SIZES,
    diffusers_name,
    diffusers_network,
    inputs,
    native_network,
    random_network,
    relative,
)
from vdot_core.networks import rope

FORWARD, GRADIENT = 1e-5, 1e-4
sizes = pytest.mark.parametrize("config", SIZES.values(), ids=list(SIZES))


@sizes
@pytest.mark.parametrize(("batch", "num_contexts", "scale"), [(1, 1, 1.0), (2, 1, 0.6), (2, 2, [1.0, 0.35])])
def test_forward_equals_comfyui(comfy, config, batch, num_contexts, scale):
    network = random_network(config)
    x, timestep, text, contexts = inputs(config, batch=batch, num_contexts=num_contexts)
    strengths = scale if isinstance(scale, list) else [scale]
    with torch.no_grad():
        expected = native_network(network)(x, timestep, text, vace_context=contexts, vace_strength=strengths)
        assert relative(network(x, timestep, text, contexts, scale), expected) <= FORWARD
        assert relative(network(x, timestep, text, contexts, 0.0), expected) > 1e-2  # the contexts matter


@sizes
def test_forward_without_context_equals_comfyui(comfy, config):
    network = random_network(config)
    x, timestep, text, contexts = inputs(config, batch=2, height=5, width=7)
    plain = random_network(replace(config, vace_layers=()))
    plain.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        expected = native_network(plain)(x, timestep, text)
        assert relative(network(x, timestep, text), expected) <= FORWARD
        assert relative(plain(x, timestep, text), expected) <= FORWARD
        assert relative(network(x, timestep, text, contexts, 0.0), expected) <= FORWARD


@sizes
@pytest.mark.parametrize("with_context", [True, False])
def test_forward_and_gradients_equal_diffusers(config, with_context):
    config = config if with_context else replace(config, vace_layers=())
    network = random_network(config)
    peer = diffusers_network(network)
    x, timestep, text, contexts = inputs(config, batch=2)
    x_peer = x.clone().requires_grad_()
    x.requires_grad_()
    if with_context:
        velocity = network(x, timestep, text, contexts, 0.7)
        scale = torch.full((len(config.vace_layers),), 0.7)
        expected = peer(x_peer, timestep, text, None, contexts[:, 0], scale, return_dict=False)[0]
    else:
        velocity, expected = network(x, timestep, text), peer(x_peer, timestep, text, return_dict=False)[0]
    assert relative(velocity, expected) <= FORWARD

    direction = torch.randn_like(velocity)
    (velocity * direction).sum().backward()
    (expected * direction).sum().backward()
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert relative(parameter.grad, gradients[diffusers_name(name)]) <= GRADIENT, name
    assert relative(x.grad, x_peer.grad) <= GRADIENT


def test_each_sample_has_its_own_timestep_and_text():
    config = SIZES["narrow heads"]
    network = random_network(config)
    x, timestep, text, contexts = inputs(config, batch=3, num_contexts=2)
    with torch.no_grad():
        together = network(x, timestep, text, contexts)
        for n in range(3):
            one = slice(n, n + 1)
            alone = network(x[one], timestep[one], text[one], contexts[one])
            assert relative(together[one], alone) <= FORWARD
        shared = network(x, timestep[:1], text[:1], contexts[:1])
        repeated = network(
            x, timestep[:1].repeat(3), text[:1].repeat(3, 1, 1), contexts[:1].repeat(3, 1, 1, 1, 1, 1)
        )
        assert relative(shared, repeated) <= FORWARD


def _swapped_modulation(network):
    network.blocks[1].modulation.data = network.blocks[1].modulation.data[:, [1, 0, 2, 3, 4, 5]]


def _wrong_vace_block(network):
    network.vace_blocks[0].after_proj.load_state_dict(network.vace_blocks[1].after_proj.state_dict())


def _late_vace_layers(network):
    network.vace_layers_mapping = {0: 0, 3: 1}


def _no_norm_of_keys(network):
    network.blocks[2].self_attn.norm_k = torch.nn.Identity()


def _wrong_frequency_order(network):
    weight = network.time_embedding[0].weight
    weight.data = weight.data.roll(weight.shape[1] // 2, dims=1)


@pytest.mark.parametrize(
    "breakage",
    [_swapped_modulation, _wrong_vace_block, _late_vace_layers, _no_norm_of_keys, _wrong_frequency_order],
)
def test_a_broken_network_is_seen(comfy, breakage):
    config = SIZES["narrow heads"]
    network = random_network(config)
    x, timestep, text, contexts = inputs(config)
    native = native_network(network)
    breakage(network)
    with torch.no_grad():
        expected = native(x, timestep, text, vace_context=contexts, vace_strength=[1.0])
        assert relative(network(x, timestep, text, contexts), expected) > 100 * FORWARD


@pytest.mark.parametrize(
    "axes", [lambda d: (d // 2, d // 4, d // 4), lambda d: (2 * (d // 6), d - 4 * (d // 6), 2 * (d // 6))]
)
def test_a_wrong_split_of_rotary_axes_is_seen(comfy, monkeypatch, axes):
    config = SIZES["wan heads"]
    network = random_network(config)
    x, timestep, text, contexts = inputs(config)
    with torch.no_grad():
        expected = native_network(network)(x, timestep, text, vace_context=contexts, vace_strength=[1.0])
        monkeypatch.setattr(rope, "axes_dims", axes)
        table = rope.rotary_table(tuple(torch.arange(size) for size in (3, 2, 3)), config.head_dim)
        assert relative(network(x, timestep, text, contexts, rope=table), expected) > 100 * FORWARD
