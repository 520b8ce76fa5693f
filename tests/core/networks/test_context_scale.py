"""Scales by context, VACE layer and latent frame mean what they say."""

from dataclasses import replace

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from vdot_core.networks import ContextScale, passes

CONFIG = SIZES["wan heads"]  # 3 VACE layers, 2 contexts below, 4 frames


@pytest.fixture(scope="module")
def network():
    return random_network(CONFIG).requires_grad_(False)


@pytest.fixture(scope="module")
def network_inputs():
    return inputs(CONFIG, frames=4, num_contexts=2)


def hints(network, network_inputs, scale):
    """The contexts' sum in the tokens after layer 0, where the hint is linear in its scale."""
    x, timestep, text, contexts = network_inputs
    with torch.no_grad():
        plain = network(x, timestep, text, taps=(0,))[1][0]
        return network(x, timestep, text, contexts, scale, taps=(0,))[1][0] - plain


def test_by_context(network, network_inputs):
    x, timestep, text, contexts = network_inputs
    first = hints(network, (x, timestep, text, contexts[:, :1]), 1.0)
    second = hints(network, (x, timestep, text, contexts[:, 1:]), 1.0)
    for scale in ([0.3, 2.0], torch.tensor([0.3, 2.0]), (0.3, 2.0)):
        assert relative(hints(network, network_inputs, scale), 0.3 * first + 2 * second) < 1e-5
    assert relative(hints(network, network_inputs, 0.5), 0.5 * (first + second)) < 1e-5
    assert relative(hints(network, network_inputs, torch.tensor(0.5)), 0.5 * (first + second)) < 1e-5


def test_by_latent_frame(network, network_inputs):
    frames = torch.tensor([[1.0, 0.0, 0.5, 2.0], [0.0, 0.0, 1.0, 1.0]])
    alone = [hints(network, network_inputs, [1.0, 0.0]), hints(network, network_inputs, [0.0, 1.0])]
    expected = sum(
        hint.unflatten(1, (4, -1)) * row[None, :, None, None] for hint, row in zip(alone, frames, strict=True)
    ).flatten(1, 2)
    for scale in (frames, frames.tolist(), ContextScale(frames=frames)):
        assert relative(hints(network, network_inputs, scale), expected) < 1e-5
    assert hints(network, network_inputs, frames).unflatten(1, (4, -1))[:, 0].abs().max() > 0


def test_by_vace_layer(network, network_inputs):
    x, timestep, text, contexts = network_inputs
    with torch.no_grad():
        got = network(x, timestep, text, contexts, [[1.0, 0.0, 0.4], [1.0, 0.0, 0.4]])
        silenced = random_network(CONFIG)
        for parameter in silenced.vace_blocks[1].after_proj.parameters():
            parameter.zero_()
        for parameter in silenced.vace_blocks[2].after_proj.parameters():
            parameter.mul_(0.4)
        assert relative(got, silenced(x, timestep, text, contexts)) < 1e-5
        both = ContextScale(layers=[[1.0, 0.0, 0.4]] * 2, frames=0.5)
        halves = network(x, timestep, text, contexts, [[0.5, 0.0, 0.2]] * 2)
        assert relative(network(x, timestep, text, contexts, both), halves) < 1e-5


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("scale", [0.7, [0.7, 0.2], [[0.5, 1.0, 0.2]] * 2, torch.rand(2, 4)])
def test_contexts_together_equal_one_by_one(network, scale, grad, monkeypatch):
    x, timestep, text, contexts = inputs(CONFIG, frames=4, num_contexts=2, batch=2)
    with torch.set_grad_enabled(grad):
        together = network(x, timestep, text, contexts, scale)
        monkeypatch.setattr(passes, "MAX_BATCHED_TOKENS", 1)
        alone = network(x, timestep, text, contexts, scale)
    assert relative(together, alone) < 1e-5


def test_contexts_may_be_scaled_in_different_ways(network, network_inputs):
    """A list holds for each context a number, a row or a `ContextScale` of it."""
    x, timestep, text, contexts = network_inputs
    layers, frames = torch.rand(3), torch.rand(4)
    for first, full in (
        (layers, ContextScale(layers=torch.stack((layers, torch.full((3,), 0.5))))),
        (frames.tolist(), torch.stack((frames, torch.full((4,), 0.5)))),
        (ContextScale(layers, frames), ContextScale(torch.stack((layers, torch.full((3,), 0.5))),
                                                    torch.stack((frames, torch.ones(4))))),
    ):  # fmt: skip
        got = network(x, timestep, text, contexts, [first, 0.5])
        assert relative(got, network(x, timestep, text, contexts, full)) < 1e-6


def test_gradients_reach_the_scale(network, network_inputs):
    scale = torch.ones(2, 4, requires_grad=True)
    x, timestep, text, contexts = network_inputs
    network(x, timestep, text, contexts, scale).square().sum().backward()
    assert scale.grad.abs().min() > 0


def test_ambiguous_shape_is_refused_unless_named(network_inputs):
    config = replace(CONFIG, num_layers=8, vace_layers=(0, 2, 4, 6))
    network = random_network(config).requires_grad_(False)
    x, timestep, text, contexts = network_inputs
    values = torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"row of \[4\].*ContextScale"):
        network(x, timestep, text, contexts, values)
    by_layer = network(x, timestep, text, contexts, ContextScale(layers=values))
    by_frame = network(x, timestep, text, contexts, ContextScale(frames=values))
    assert relative(by_layer, by_frame) > 1e-3


@pytest.mark.parametrize(
    "scale", [[1.0], torch.ones(2, 5), torch.ones(3), ContextScale(layers=torch.ones(2, 4))]
)
def test_wrong_shapes_are_refused(network, network_inputs, scale):
    x, timestep, text, contexts = network_inputs
    with pytest.raises(ValueError, match=r"scale.* has shape"):
        network(x, timestep, text, contexts, scale)
