"""The plan's closed forms against torch: operations, activations that autograd keeps, parameters."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support.memory import peak_bytes
from training.data.batch import Batch
from training.distributed.world import World
from training.engine.draws import Draws
from training.engine.method import set_trained
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.planning.activations import graph_activations
from training.planning.flops import pass_flops
from training.planning.phases import counted_steps, update_costs
from training.planning.sizes import Sizes
from training.planning.workload import Clip, Workload
from vdot_core.networks import (
    PRESETS,
    Discriminator,
    WanVace,
    WanVaceConfig,
    add_adapter,
    vdot_tiny,
    wan_vace_14b,
)

SMALL = WanVaceConfig(
    dim=128, ffn_dim=344, num_heads=4, num_layers=8, vace_layers=(0, 4), text_dim=64, freq_dim=64, text_len=32
)


class FusedNorm(torch.autograd.Function):
    """RMS norm as one kernel, as on CUDA: of the activations only the input is kept."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.rms_norm(x, x.shape[-1:], weight)

    @staticmethod
    def backward(ctx, grad):
        return grad, torch.zeros_like(ctx.saved_tensors[1])


class FusedOperations:
    """torch.nn with that norm."""

    Linear, LayerNorm, Conv3d = nn.Linear, nn.LayerNorm, nn.Conv3d

    class RMSNorm(nn.RMSNorm):
        """One kernel."""

        def forward(self, x):
            """Norm."""
            return FusedNorm.apply(x, self.weight)


@contextmanager
def kept_bytes(*modules):
    """Count the storages that autograd keeps, parameters left out and each counted once."""
    parameters = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
    storages, total = {}, [0]

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            storages[storage._cdata] = storage  # held, so that its address is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    total[0] = sum(storage.nbytes() for storage in storages.values())


def run(network, batch, contexts=1, taps=()):
    """A forward pass of 4 latent frames of 16 x 16 with a graph down to the latents."""
    x = torch.randn(batch, 16, 4, 16, 16, requires_grad=True)
    args = (torch.full((batch,), 500.0), torch.randn(batch, 32, 64))
    context = torch.randn(batch, contexts, 96, 4, 16, 16) if contexts else None
    return network(x, *args, context, taps=taps)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_kept_activations_are_those_of_saved_tensors(trained, fused):
    operations = FusedOperations if fused else nn
    cases = ((1, 0, 1), (1, 1, 1), (1, 4, 1), (2, 1, 0), (2, 0, 1), (1, 3, 2), (1, 100, 1))
    for batch, every, contexts in cases:
        config = SMALL if contexts else dataclasses.replace(SMALL, vace_layers=())
        network = WanVace(config, operations).requires_grad_(trained)
        network.gradient_checkpointing(every)
        with kept_bytes(network) as num_bytes:
            velocity = run(network, batch, contexts)
        work = Workload(batch, 4 * 8 * 8, 32, contexts)
        graph = graph_activations(
            config, work, checkpoint_every=every, element_bytes=4, trained=trained, fused_norms=fused
        )
        # Beside it, a few small ones: text, modulation and the latents that the first layer is given.
        assert graph.saved == pytest.approx(num_bytes[0], rel=0.15, abs=80e3), (batch, every, contexts)
        assert velocity.shape[0] == batch


@pytest.mark.parametrize("fused", [True, False])
def test_kept_activations_of_adapters(fused):
    operations, rank = FusedOperations if fused else nn, 8
    for batch, every, contexts in ((1, 0, 1), (1, 1, 1), (1, 4, 1), (2, 0, 1), (1, 1, 2), (1, 0, 0)):
        config = SMALL if contexts else dataclasses.replace(SMALL, vace_layers=())
        network = WanVace(config, operations)
        add_adapter(network, "one", rank)
        network.gradient_checkpointing(every)
        with kept_bytes(network) as num_bytes, network.adapted.activated("one"):
            run(network, batch, contexts)
        work = Workload(batch, 4 * 8 * 8, 32, contexts)
        graph = graph_activations(
            config, work, checkpoint_every=every, element_bytes=4, rank=rank, fused_norms=fused
        )
        assert graph.saved == pytest.approx(num_bytes[0], rel=0.15, abs=80e3), (batch, every, contexts)


def test_peak_of_the_backward_pass_by_size_of_the_recomputed_groups():
    network, peaks = WanVace(SMALL, FusedOperations), {}

    def step():
        run(network, 1).sum().backward()

    step()  # gradients are there
    for every in (0, 1, 4, 100):
        network.gradient_checkpointing(every)
        peaks[every] = peak_bytes(step)
        work = Workload(1, 4 * 8 * 8, 32, 1)
        graph = graph_activations(SMALL, work, checkpoint_every=every, element_bytes=4)
        assert graph.peak == pytest.approx(peaks[every], rel=0.2), every
    # Hints are added after blocks 0 and 4, so that no group has more than four.
    assert peaks[1] < peaks[4] < 0.6 * peaks[0] and peaks[100] == pytest.approx(peaks[4], rel=0.05)


@pytest.mark.parametrize("every", [0, 1, 4])
def test_bf16_activations_with_kernels_as_on_a_gpu(every):
    network = WanVace(SMALL, FusedOperations).bfloat16()  # the patch embeddings too, as under autocast
    network.gradient_checkpointing(every)
    network.residual_dtype = torch.bfloat16  # as in training
    with kept_bytes(network) as num_bytes:
        run(network, 1)
    work = Workload(1, 4 * 8 * 8, 32, 1)
    graph = graph_activations(SMALL, work, checkpoint_every=every, element_bytes=2)
    assert graph.saved == pytest.approx(num_bytes[0], rel=0.15)


@pytest.mark.parametrize("trained", [True, False])
def test_activations_that_the_discriminator_adds(trained):
    network, head = WanVace(SMALL).requires_grad_(trained), Discriminator.for_network(SMALL, width=32)
    head.requires_grad_(trained)
    network.gradient_checkpointing(1)
    with kept_bytes(network, head) as num_bytes:
        features = run(network, 1, taps=(4, 5, 7))[1]
        head([one.double().float() for one in features], torch.randn(1, SMALL.dim)).sum()
    work = Workload(1, 4 * 8 * 8, 32, 1)
    graph = graph_activations(
        SMALL, work, checkpoint_every=1, element_bytes=4, trained=trained, taps=3, fused_norms=False
    )
    assert graph.saved == pytest.approx(num_bytes[0], rel=0.25) and graph.tapped > 0


@pytest.mark.parametrize("name", ["vdot_tiny", pytest.param("wan_vace_14b", marks=pytest.mark.full)])
def test_operations_are_those_of_the_flop_counter(name):
    config = PRESETS[name]()
    clip = Clip() if name == "wan_vace_14b" else Clip(128, 64, 9, num_references=1)
    shape = clip.latent_shape
    network = WanVace(config, device="meta", dtype=torch.bfloat16)
    contexts = torch.empty(1, clip.num_contexts, 96, *shape, device="meta")
    text = torch.empty(1, config.text_len, config.text_dim, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 16, *shape, device="meta"), torch.empty(1, device="meta"), text, contexts)
    assert pass_flops(config, Workload.of(config, clip)).forward == counter.get_total_flops()


@pytest.mark.parametrize("trained", [True, False])
def test_operations_of_the_backward_pass(trained):
    network = WanVace(SMALL, device="meta").requires_grad_(trained)
    x = torch.empty(2, 16, 4, 16, 16, device="meta", requires_grad=True)
    text, contexts = torch.empty(2, 32, 64, device="meta"), torch.empty(2, 1, 96, 4, 16, 16, device="meta")
    with FlopCounterMode(display=False) as counter:
        velocity = network(x, torch.empty(2, device="meta"), text, contexts)
        forward = counter.get_total_flops()
        velocity.sum().backward()
    one = pass_flops(SMALL, Workload(2, 256, 32, 1))
    # The counter sees plain attention here, without the half pass that a flash kernel repeats.
    expected = one.backward(trained) - 0.5 * one.attention
    if not trained:  # and plain attention has no gradients for keys and values of the text
        expected -= one.attention * 32 / (256 + 32)
    assert counter.get_total_flops() - forward == pytest.approx(expected, rel=0.02)


def test_numbers_of_parameters():
    config = distill_config({"model": {"preset": "wan_vace_14b", "frozen": ["vace_"]}})
    sizes = Sizes.of(wan_vace_14b(), config)
    assert sizes.network == 17_337_592_896 and sizes.network - sizes.trained == pytest.approx(
        3.049e9, rel=1e-3
    )
    blocks = sum(p.numel() for p in WanVace(wan_vace_14b(), device="meta").vace_blocks[0].parameters())
    assert sizes.block == blocks


@pytest.fixture(scope="module")
def method():
    """The bundled teacher as all three networks, and a batch of latents."""
    config = distill_config(
        {
            "model": {"preset": "vdot_tiny", "real_score": "assets/vdot_tiny.safetensors"},
            "losses": {"iterations": 2},
            "rollout": {"steps": 2},
            "parallel": {"precision": "fp32", "checkpoint_every": 2},
        }
    )
    world = World(0, 1, torch.device("cpu"), None, "fp32")
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        ("a",), ("depth",), (0,), torch.randn(1, 64, 128, generator=generator), (16, 2, 8, 8),
        latents=torch.randn(1, 16, 2, 8, 8, generator=generator),
        contexts=torch.randn(1, 1, 96, 2, 8, 8, generator=generator),
    )  # fmt: skip
    return Vdot(config, world, torch.zeros(1, 64, 128)), batch


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.full),
        {"shared_scores": False, "gan_trains_score": False, "r1": 1.0},
    ],
)
def test_updates_cost_what_the_losses_really_run(method, changes, monkeypatch):
    method, batch = method
    losses = dataclasses.replace(method.config.losses, **changes)
    config = dataclasses.replace(method.config, losses=losses)
    monkeypatch.setattr(method, "config", config)
    monkeypatch.setattr(method, "losses", losses)
    exits = iter(range(100))
    monkeypatch.setattr(
        "training.engine.draws.Draws.shared_integer", lambda self, high, purpose: next(exits) % high + 1
    )
    clip = Clip(64, 64, 5)
    predicted = update_costs(vdot_tiny(), clip, config)
    for step in (0, 5):
        draws = Draws(config.seed, step, batch.positions)
        for update in method.updates(step):
            set_trained(method, update.trained)
            total = 0
            for _ in range(config.rollout.steps):  # each exit step once
                with (
                    torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
                    FlopCounterMode(display=False) as counter,
                ):
                    update.loss(batch, draws).total.backward()
                total += counter.get_total_flops()
            kind = update.loss.__name__
            assert total / config.rollout.steps == pytest.approx(predicted[kind].flops, rel=0.06), (
                kind,
                changes,
            )


def test_turns_of_the_updates():
    counts = counted_steps(distill_config({}))
    assert counts == pytest.approx(
        {"generator_matching": 0.1, "generator_gan": 0.1, "critic_matching": 0.5,
         "critic_gan": 0.5}
    )  # fmt: skip
    assert "critic_gan" not in counted_steps(distill_config({"losses": {"gan": False}}))
