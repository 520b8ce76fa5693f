"""Features around the network's forward pass: taps, hooks, padding, layers, errors."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from vdot_core.networks import Hooks, WanVace, rotary_table, sdpa_attention

CONFIG = SIZES["narrow heads"]


@pytest.fixture(scope="module")
def network():
    return random_network(CONFIG).requires_grad_(False)


@pytest.mark.parametrize("size", [(3, 5, 6), (2, 4, 7), (1, 3, 3), (2, 1, 1)])
def test_odd_sizes_are_padded_around_and_cropped(network, size):
    t, h, w = size
    x, timestep, text, contexts = inputs(CONFIG, frames=t, height=h, width=w, num_contexts=2)
    wrapped = [torch.cat((v, v[..., :1, :]), -2) if h % 2 else v for v in (x, contexts)]
    wrapped = [torch.cat((v, v[..., :1]), -1) if w % 2 else v for v in wrapped]
    expected = network(wrapped[0], timestep, text, wrapped[1])[..., :h, :w]
    got = network(x, timestep, text, contexts)
    assert got.shape == x.shape and relative(got, expected) < 1e-6


def test_text_of_any_length(network):
    x, timestep, text, _ = inputs(CONFIG, tokens=3)
    assert network(x, timestep, text).shape == x.shape
    assert relative(network(x, timestep, text.repeat(1, 2, 1)), network(x, timestep, text)) < 1e-5
    padded = F.pad(text, (0, 0, 0, 4))
    assert (
        relative(network(x, timestep, padded), network(x, timestep, text)) > 1e-3
    )  # zeros are attended to, as in Wan


def test_taps_are_the_tokens_after_each_block(network):
    x, timestep, text, contexts = inputs(CONFIG, batch=2)
    with torch.no_grad():
        velocity, features = network(x, timestep, text, contexts, taps=(0, 1, 3))
        assert relative(velocity, network(x, timestep, text, contexts)) < 1e-6
    assert [tuple(feature.shape) for feature in features] == [(2, 18, 64)] * 3

    time = network.time_embedding(_sinusoid(timestep, CONFIG.freq_dim))
    patches = network.head(features[-1], time).view(2, 3, 2, 3, 1, 2, 2, 16)
    assert relative(torch.einsum("bthwpqrc->bctphqwr", patches).reshape(x.shape), velocity) < 1e-5

    class Second(Hooks):
        def run_block(self, index, block, x, *args):
            return super().run_block(index, block, features[0].clone() if index == 1 else x, *args)

    again = network(x, timestep, text, contexts, taps=(1,), hooks=Second())[1][0]
    assert relative(again, features[1]) < 1e-6


def _sinusoid(timestep, dim):
    angle = timestep[:, None].double() / 10000 ** (torch.arange(dim // 2) / (dim // 2))
    return torch.cat((angle.cos(), angle.sin()), dim=1).float()


def test_taps_carry_gradients_and_stop_early_is_possible():
    network = random_network(CONFIG)
    x, timestep, text, _ = inputs(CONFIG)
    _, (feature,) = network(x, timestep, text, taps=(1,))
    feature.sum().backward()
    assert network.blocks[1].ffn[2].weight.grad is not None and network.blocks[2].ffn[2].weight.grad is None


def test_every_hook_is_called_and_can_change_the_result(network):
    x, timestep, text, contexts = inputs(CONFIG, num_contexts=2)
    calls = []

    class Log(Hooks):
        def begin(self, latents, grid):
            calls.append(("begin", tuple(latents.shape), grid))

        def attention(self, q, k, v, num_heads):
            calls.append(("attention", tuple(q.shape), tuple(k.shape)))
            return super().attention(q, k, v, num_heads)

        def rotate(self, x, rope):
            calls.append(("rotate", tuple(x.shape)))
            return super().rotate(x, rope)

        def run_block(self, index, block, x, modulation, text, rope):
            calls.append(("run_block", index))
            return super().run_block(index, block, x, modulation, text, rope)

        def after_self_attention(self, x, q, k):
            calls.append(("after_self_attention", tuple(x.shape), tuple(q.shape), tuple(k.shape)))
            return x

        def after_cross_attention(self, x):
            calls.append(("after_cross_attention", tuple(x.shape)))
            return x

        def after_block(self, index, x, latents, time):
            calls.append(("after_block", index, tuple(time.shape)))
            return x

    plain = network(x, timestep, text, contexts)
    assert torch.equal(network(x, timestep, text, contexts, hooks=Log()), plain)
    one = (1, 18, 64)
    assert calls[:7] == [
        ("begin", (1, 16, 3, 4, 6), (3, 2, 3)),
        ("run_block", 0),
        ("rotate", (1, 18, 2, 32)),
        ("rotate", (1, 18, 2, 32)),
        ("attention", one, one),
        ("after_self_attention", one, (1, 18, 2, 32), (1, 18, 2, 32)),
        ("attention", one, (1, 7, 64)),
    ]
    assert calls[7:10] == [
        ("after_cross_attention", one),
        ("after_block", 0, (1, 64)),
        ("rotate", (2, 18, 2, 32)),
    ]
    names = [call[0] for call in calls]
    assert names.count("after_block") == names.count("run_block") == 4 and names.count("attention") == 2 * (
        4 + 2
    )

    for name in ("after_self_attention", "after_cross_attention"):
        changed = type("Changed", (Hooks,), {name: lambda self, x, *rest: 0.5 * x})()
        assert relative(network(x, timestep, text, contexts, hooks=changed), plain) > 1e-2


def test_attention_and_positions_are_pluggable():
    calls = []

    def attention(q, k, v, num_heads):
        calls.append(num_heads)
        return sdpa_attention(q, k, v, num_heads)

    network = random_network(CONFIG, attention=attention).requires_grad_(False)
    x, timestep, text, contexts = inputs(CONFIG)
    plain = network(x, timestep, text)
    assert calls == [2] * (2 * CONFIG.num_layers)
    calls.clear()
    among_tokens = random_network(CONFIG, self_attention=attention).requires_grad_(False)
    assert torch.equal(among_tokens(x, timestep, text, contexts), network(x, timestep, text, contexts))
    assert len(calls) == 3 * (CONFIG.num_layers + len(CONFIG.vace_layers))
    shifted = rotary_table(tuple(torch.arange(size) + 5 for size in (3, 2, 3)), CONFIG.head_dim)
    assert relative(network(x, timestep, text, rope=shifted), plain) < 1e-5
    stretched = rotary_table(tuple(torch.arange(size) * 2 for size in (3, 2, 3)), CONFIG.head_dim)
    assert relative(network(x, timestep, text, rope=stretched), plain) > 1e-3


def test_layers_come_from_operations():
    layers = []

    def kind(name):
        def make(*args, **kwargs):
            layers.append(getattr(torch.nn, name)(*args, **kwargs))
            return layers[-1]

        return make

    operations = SimpleNamespace(
        **{name: kind(name) for name in ("Linear", "LayerNorm", "RMSNorm", "Conv3d")}
    )
    network = WanVace(CONFIG, operations)
    with_weights = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    raw = [m for m in with_weights if hasattr(m, "modulation")]
    assert {id(m) for m in layers} == {id(m) for m in with_weights} - {id(m) for m in raw}
    assert len(raw) == CONFIG.num_layers + len(CONFIG.vace_layers) + 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inputs_are_never_written_to(network, mode):
    arguments = inputs(CONFIG, num_contexts=2)
    copies = [tensor.clone() for tensor in arguments]
    state = copy.deepcopy(network.state_dict())
    with mode():
        first, second = network(*arguments), network(*arguments)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 4, 3, 4, 6)}, r"latents have shape \[1, 4, 3, 4, 6\]; give \[B, 16, T, h, w\]"),
        ({"timestep": torch.zeros(2)}, r"timestep has shape \[2\]; give \[1\]"),
        ({"text": torch.zeros(1, 7, 99)}, r"text has shape \[1, 7, 99\]; give \[1, S, 24\]"),
        ({"contexts": torch.zeros(1, 96, 3, 4, 6)}, r"contexts have shape .*; give \[1, K, 96, 3, 4, 6\]"),
        ({"contexts": torch.zeros(1, 0, 96, 3, 4, 6)}, "contexts have shape"),
        (
            {"contexts": torch.zeros(1, 1, 96, 4, 4, 6)},
            r"contexts of \[4, 4, 6\] latents .* reference frames included",
        ),
        ({"x": torch.zeros(1, 16, 0, 4, 6)}, r"latents have shape"),
        ({"timestep": 500.0}, r"timestep is 500.0; give a tensor"),
        ({"taps": (1, 0)}, r"taps are \[1, 0\]; give each once, rising"),
        ({"taps": (1, 1)}, r"taps are \[1, 1\]"),
        ({"context_scale": None}, r"context_scale is missing"),
        ({"context_scale": [0.5, [1.0, 1.0]]}, r"2 entries for 1 contexts"),
        ({"context_scale": [[0.5, "strong"]]}, r"context_scale of a context is \[0.5, 'strong'\]"),
        ({"taps": (1, 4)}, r"taps \[4\] are no blocks; the network has blocks 0 to 3"),
    ],
)
def test_wrong_inputs_are_refused(network, change, message):
    arguments = dict(zip(("x", "timestep", "text", "contexts"), inputs(CONFIG), strict=True))
    with pytest.raises(ValueError, match=message):
        network(**{**arguments, **change})


def test_contexts_need_a_branch():
    plain = random_network(replace(CONFIG, vace_layers=()))
    with pytest.raises(ValueError, match="text-only network"):
        plain(*inputs(CONFIG))
