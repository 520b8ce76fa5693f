"""The network traces into one graph that is traced once, and inference keeps few temporaries."""

from dataclasses import replace

import pytest
import torch

from tests.core.networks.helpers import SIZES, diffusers_network, inputs, random_network, relative
from vdot_core.networks import WanVaceConfig, passes

WIDE = WanVaceConfig(
    dim=256, ffn_dim=704, num_heads=2, num_layers=4, vace_layers=(0, 2), text_dim=32, freq_dim=32
)
SIZE = {"frames": 5, "height": 32, "width": 32}
TOKENS = 5 * 16 * 16


@pytest.mark.parametrize("grad", [False, True])
def test_one_graph_traced_once(grad):
    from torch._dynamo.testing import CompileCounter  # seconds to import

    config = replace(SIZES["narrow heads"], num_layers=2, vace_layers=(0,))
    network = random_network(config).requires_grad_(grad)
    if grad:
        network.gradient_checkpointing(2)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    with torch.set_grad_enabled(grad):
        for seed, scale in ((1, [1.0, 0.5]), (2, [0.2, 0.3])):
            arguments = inputs(config, batch=2, num_contexts=2, seed=seed, height=5)
            scale = torch.tensor(scale)
            velocity, (feature,) = compiled(*arguments, scale, taps=(1,))
            expected, (expected_feature,) = network(*arguments, scale, taps=(1,))
            assert relative(velocity, expected) < 1e-5 and relative(feature, expected_feature) < 1e-5
    assert counter.frame_count == 1


def peak_bytes(call) -> int:
    """Most bytes that a call holds at one time on the CPU, beyond what was there."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile, torch.no_grad():  # fmt: skip
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert peak > 0
    return peak


@pytest.fixture
def one_thread():
    """CPU kernels keep scratch memory for each thread, which is not the network's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inference_keeps_few_temporaries(dtype, one_thread):
    # Without the norm of queries and keys, whose CPU kernel makes more temporaries than all the rest.
    network = random_network(replace(WIDE, qk_norm=False)).to(dtype).requires_grad_(False)
    x, timestep, text, contexts = (v.to(dtype) if v.ndim > 1 else v for v in inputs(WIDE, **SIZE))
    peak = peak_bytes(lambda: network(x, timestep, text, contexts))
    # Video, backbone, context before and in its first block, normed, q, k, v, attention; rotary table. In
    # bfloat16, backbone and context take twice the space: they are float32.
    tensors = 10.6 if dtype == torch.float32 else 12.6
    if dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
        tensors += 2.1  # torch's attention packs key and value for AMX
    assert peak <= tensors * TOKENS * WIDE.dim * x.element_size()


def test_inference_needs_less_memory_than_diffusers():
    network = random_network(WIDE).requires_grad_(False)
    peer = diffusers_network(network).requires_grad_(False)
    x, timestep, text, contexts = inputs(WIDE, **SIZE)
    peer_peak = peak_bytes(lambda: peer(x, timestep, text, None, contexts[:, 0]))
    assert peak_bytes(lambda: network(x, timestep, text, contexts)) <= 0.85 * peer_peak


def test_a_context_more_costs_little_more_than_its_tokens(monkeypatch):
    network = random_network(WIDE).requires_grad_(False)
    monkeypatch.setattr(passes, "MAX_BATCHED_TOKENS", TOKENS)
    tokens_bytes = TOKENS * WIDE.dim * 4
    peaks = [peak_bytes(lambda k=k: network(*inputs(WIDE, num_contexts=k, **SIZE))) for k in (1, 3)]
    context_bytes = inputs(WIDE, **SIZE)[3].nbytes
    assert peaks[1] - peaks[0] <= 2 * (context_bytes + 1.5 * tokens_bytes)
