"""Training the network: checkpointing, initial weights, precision."""

import copy

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from vdot_core.networks import WanVace, vdot_tiny

CONFIG = SIZES["narrow heads"]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_gradient_checkpointing_changes_no_gradient(every):
    x, timestep, text, contexts = inputs(CONFIG, num_contexts=2, batch=2)
    plain, checkpointed = random_network(CONFIG), random_network(CONFIG)
    checkpointed.gradient_checkpointing(every)
    runs = [0]
    checkpointed.blocks[0].register_forward_pre_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    losses = []
    for network in (plain, checkpointed):
        velocity, features = network(x, timestep, text, contexts, [1.0, 0.5], taps=(2,))
        losses.append(velocity.square().sum() + features[0].sum())
        losses[-1].backward()
    assert torch.equal(*losses) and runs[0] == 2
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)
    with torch.no_grad():
        checkpointed(x, timestep, text, contexts)
    assert runs[0] == 3
    with pytest.raises(ValueError, match="every_n_blocks is -1"):
        plain.gradient_checkpointing(-1)


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
