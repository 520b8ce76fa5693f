"""Training the network: checkpointing, initial weights, precision."""

import copy
from collections import Counter

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from vdot_core.networks import WanVace, passes, vdot_tiny

CONFIG = SIZES["narrow heads"]


def counted_runs(network):
    """Calls of every block, as they come."""
    runs = Counter()
    blocks = {f"blocks.{n}": block for n, block in enumerate(network.blocks)}
    blocks |= {f"vace_blocks.{n}": block for n, block in enumerate(network.vace_blocks)}
    for name, block in blocks.items():
        block.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    return runs


@pytest.mark.parametrize("together", [True, False], ids=["contexts in a pass", "a pass for each"])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 100])
def test_gradient_checkpointing_changes_no_gradient(every, together, monkeypatch):
    """Same loss, features and gradients, down to the latents; every block runs exactly once more."""
    if not together:
        monkeypatch.setattr(passes, "MAX_BATCHED_TOKENS", 0)
    x, timestep, text, contexts = inputs(CONFIG, num_contexts=2, batch=2)
    plain, checkpointed = random_network(CONFIG), random_network(CONFIG)
    checkpointed.gradient_checkpointing(every)
    counts, losses, slopes = counted_runs(checkpointed), [], []
    scale = torch.tensor([1.0, 0.5])
    for network in (plain, checkpointed):
        tensors = [one.clone().requires_grad_() for one in (x, text, contexts)]
        velocity, features = network(tensors[0], timestep, *tensors[1:], scale, taps=(0, 1, 3))
        losses.append(velocity.square().sum() + sum((n + 1) * one.sum() for n, one in enumerate(features)))
        if network is checkpointed:
            streams = 1 if together else 2
            expected = {f"blocks.{n}": 1 for n in range(4)} | {f"vace_blocks.{n}": streams for n in range(2)}
            assert counts == expected
        losses[-1].backward()
        slopes.append({name: p.grad for name, p in network.named_parameters()})
        slopes[-1] |= {f"input {n}": one.grad for n, one in enumerate(tensors)}
    assert torch.equal(*losses)
    assert counts == {name: 2 * runs for name, runs in expected.items()}
    for name, slope in slopes[0].items():
        assert torch.equal(slopes[1][name], slope), name
    with torch.no_grad():
        checkpointed(x, timestep, text, contexts)
    assert counts == {name: 3 * runs for name, runs in expected.items()}


@pytest.mark.parametrize("trained", [True, False])
def test_only_what_enters_a_group_is_kept(trained):
    """The video's tokens that enter a group of backbone blocks, and the context's that enter a VACE block."""
    x, timestep, text, contexts = inputs(CONFIG)
    size = x[0, 0].numel() // 4 * CONFIG.dim  # one token tensor [L, D]
    network = random_network(CONFIG).requires_grad_(trained)
    # Groups: b0, v0, b1 b2, v2, b3, or without contexts b0 b1, b2 b3; and what the head's norm gets.
    cases = ((1, contexts, 6), (2, contexts, 5), (100, contexts, 5), (1, None, 4), (2, None, 2), (3, None, 2))
    for every, group_contexts, entering in (*cases, (100, None, 1)):
        network.gradient_checkpointing(every)
        storages = {}

        def pack(tensor, storages=storages):
            if tensor.shape[1:] == (size // CONFIG.dim, CONFIG.dim):
                storages[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(x.requires_grad_(), timestep, text, group_contexts)
        assert len(storages) == entering + 1, (every, group_contexts is None)


def test_a_negative_group_is_refused():
    with pytest.raises(ValueError, match="every_n_blocks is -1"):
        random_network(CONFIG).gradient_checkpointing(-1)


def test_initial_weights_are_wans_and_reproducible():
    first, second, other = (WanVace(vdot_tiny()) for _ in range(3))
    for network, seed in ((first, 3), (second, 3), (other, 4)):
        network.initialize_weights(torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.blocks[0].self_attn.q.weight, other.blocks[0].self_attn.q.weight)
    block = first.blocks[3]
    bound = (6 / (128 + 512)) ** 0.5
    assert bound * 0.99 < block.ffn[0].weight.abs().max() <= bound and block.ffn[0].bias.abs().max() == 0
    assert first.patch_embedding.weight.abs().max() <= (6 / (128 + 64)) ** 0.5
    for layer in (
        first.text_embedding[0],
        first.text_embedding[2],
        first.time_embedding[0],
        first.time_embedding[2],
    ):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    tables = torch.cat([b.modulation.flatten() for b in first.blocks])
    assert tables.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert (block.norm3.weight == 1).all() and (block.self_attn.norm_q.weight == 1).all()
    zero = [first.head.head, first.vace_blocks[0].before_proj, *(b.after_proj for b in first.vace_blocks)]
    assert all(parameter.abs().max() == 0 for layer in zero for parameter in layer.parameters())

    x, timestep, text, contexts = inputs(vdot_tiny())
    with torch.no_grad():
        assert first(x, timestep, text, contexts).abs().max() == 0
    with pytest.raises(ValueError, match="meta device"):
        WanVace(CONFIG, device="meta").initialize_weights()


def test_a_new_network_learns_in_every_part():
    network = WanVace(CONFIG)
    network.initialize_weights(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    x, timestep, text, contexts = inputs(CONFIG)
    before = copy.deepcopy(network.state_dict())
    losses = []
    for _ in range(4):
        loss = (network(x, timestep, text, contexts) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not [name for name, value in network.state_dict().items() if torch.equal(value, before[name])]


def test_bfloat16_end_to_end():
    exact = random_network(CONFIG)
    network = copy.deepcopy(exact).to(torch.bfloat16)
    x, timestep, text, contexts = inputs(CONFIG, batch=2, num_contexts=2)
    expected = exact(x, timestep, text, contexts)
    velocity = network(x, timestep, text, contexts, torch.tensor([1.0, 0.9]))
    velocity.square().mean().backward()
    assert velocity.dtype == x.dtype and network.blocks[0].modulation.grad.dtype == torch.bfloat16
    with torch.no_grad():
        velocity = network(x, timestep, text, contexts)
        assert relative(velocity, expected) < 3e-2
        assert network(x.bfloat16(), timestep, text, contexts).dtype == torch.bfloat16
        mixed = WanVace(CONFIG, dtype=torch.bfloat16)
        assert mixed.patch_embedding.weight.dtype == mixed.vace_patch_embedding.weight.dtype == torch.float32
        mixed.load_state_dict(exact.state_dict())
        assert relative(mixed(x, timestep, text, contexts), expected) <= 1.1 * relative(velocity, expected)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_autocast_trains_float32_weights():
    network = random_network(CONFIG)
    x, timestep, text, contexts = inputs(CONFIG)
    with torch.no_grad():
        expected = network(x, timestep, text, contexts)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = network(x, timestep, text, contexts)
    velocity.square().mean().backward()
    assert relative(velocity, expected) < 3e-2
    assert network.blocks[0].modulation.grad.isfinite().all()
