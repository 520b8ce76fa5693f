"""The discriminator's head: what it depends on, what it must not depend on, and its sizes."""

import pytest
import torch
import torch.nn.functional as F

from tests.core.networks.helpers import SIZES, inputs, random_network
from vdot_core.networks import (
    PRESETS,
    Discriminator,
    WanVaceConfig,
    default_taps,
    reference_token_mask,
    vdot_tiny,
    wan_vace_14b,
)

CONFIG = SIZES["narrow heads"]


def head(num_taps=3, **kwargs) -> Discriminator:
    """A small head whose every parameter is random and away from neutral values."""
    network = Discriminator(24, num_taps, width=16, num_heads=4, time_dim=10, **kwargs)
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def random_features(num_taps=3, batch=2, tokens=12, dim=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(batch, tokens, dim, generator=generator) for _ in range(num_taps)]
    return features, torch.randn(batch, 10, generator=generator)


def by_hand(network: Discriminator, features, time, mask):
    """The logit from the definition: explicit softmax over the tokens that count, one sample at a time."""
    logits = []
    for b in range(time.shape[0]):
        joined = []
        for part, tokens in zip(network.registers, features, strict=True):
            x = tokens[b][mask[b]]
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
            x = x * part.norm.weight + part.norm.bias
            q, k, v = (made_of @ layer.weight.T + layer.bias for made_of, layer in (
                (part.register[0], part.q), (x, part.k), (x, part.v)))  # fmt: skip
            heads = []
            for n in range(4):
                cut = slice(4 * n, 4 * n + 4)
                weights = torch.softmax(q[:, cut] @ k[:, cut].T / 2, dim=-1)
                heads.append(weights @ v[:, cut])
            joined.append(torch.cat(heads, -1)[0] @ part.o.weight.T + part.o.bias)
        joined = torch.cat([*joined, 10 * time[b]])
        normed = F.layer_norm(joined, joined.shape, network.head[0].weight, network.head[0].bias, 1e-6)
        hidden = F.silu(normed @ network.head[1].weight.T + network.head[1].bias)
        logits.append((hidden @ network.head[3].weight.T + network.head[3].bias)[0])
    return torch.stack(logits)


def test_taps_of_the_presets_are_the_released_ones():
    assert default_taps(40) == (23, 31, 39) and default_taps(30) == (13, 21, 29)
    assert default_taps(PRESETS["wan_vace_14b"]().num_layers)[-1] == 39
    assert default_taps(vdot_tiny().num_layers) == (4, 5, 7)


@pytest.mark.parametrize("num_layers", range(4, 60))
def test_taps_are_distinct_blocks_that_end_with_the_last(num_layers):
    taps = default_taps(num_layers)
    assert len(taps) == 3 and list(taps) == sorted(set(taps)) and taps[0] >= 0
    assert taps[-1] == num_layers - 1


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_too_few_blocks_to_tap_are_refused(num_layers):
    with pytest.raises(ValueError, match=f"num_layers is {num_layers}"):
        default_taps(num_layers)


def test_logit_is_what_the_definition_says():
    network, (features, time) = head(), random_features()
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, :5] = mask[1, 3] = False
    assert torch.allclose(network(features, time, mask), by_hand(network, features, time, mask), atol=1e-5)
    everything = torch.ones_like(mask)
    assert torch.allclose(network(features, time), by_hand(network, features, time, everything), atol=1e-5)


def test_order_of_the_tokens_does_not_matter():
    network, (features, time) = head(), random_features()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(2, 12) > 0.3
    shuffled = network([one[:, order] for one in features], time, mask[:, order])
    assert torch.allclose(shuffled, network(features, time, mask), atol=1e-6)


def test_samples_are_independent_and_taps_distinguished():
    network, (features, time) = head(), random_features()
    both = network(features, time)
    for b in range(2):
        alone = network([one[b : b + 1] for one in features], time[b : b + 1])
        assert torch.allclose(alone, both[b : b + 1], atol=1e-6)
    assert (both - network(features[::-1], time)).abs().max() > 1e-3
    shared = network([one[:1].expand(2, -1, -1) for one in features], time[:1])
    assert torch.allclose(shared[0], shared[1]) and torch.allclose(shared[:1], both[:1], atol=1e-6)


def test_reference_tokens_have_no_influence_and_get_no_gradient():
    network, (features, time) = head(), random_features(tokens=24)
    mask = reference_token_mask((16, 4, 4, 6), 2)  # 4 frames of 2 x 3 tokens, two of them references
    assert mask.tolist() == [False] * 12 + [True] * 12
    expected = network([one[:, 12:] for one in features], time)
    wild = [torch.cat((1e4 * torch.randn(2, 12, 24), one[:, 12:]), 1).requires_grad_() for one in features]
    logits = network(wild, time, mask)
    assert torch.allclose(logits, expected, atol=1e-6)
    logits.sum().backward()
    for one in wild:
        assert one.grad[:, :12].abs().max() == 0 and one.grad[:, 12:].abs().amax((1, 2)).min() > 0


def test_mask_counts_padded_patches_of_odd_sizes():
    assert reference_token_mask((3, 5, 7), 1).sum() == 2 * 3 * 4
    assert reference_token_mask((4, 2, 2), 2, (2, 2, 2)).tolist() == [False, True]
    for count, patch in ((3, (1, 2, 2)), (-1, (1, 2, 2)), (1, (2, 2, 2))):
        with pytest.raises(ValueError, match=f"num_reference_latents is {count}"):
            reference_token_mask((3, 4, 4), count, patch)


def test_gradient_reaches_the_network_and_every_parameter():
    network = random_network(CONFIG)
    head = Discriminator.for_network(CONFIG)
    x, timestep, text, contexts = inputs(CONFIG, batch=2)
    x.requires_grad_()
    _, features = network(x, timestep, text, contexts, taps=default_taps(CONFIG.num_layers))
    time = torch.randn(2, CONFIG.dim, requires_grad=True)
    head(features, time, reference_token_mask(x.shape, 1)).sum().backward()
    assert x.grad.abs().max() > 0 and time.grad.abs().max() > 0
    for block in network.blocks[: default_taps(CONFIG.num_layers)[-1] + 1]:
        assert block.ffn[0].weight.grad.abs().max() > 0
    silent = [name for name, p in head.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # A shift of every key by the same vector changes no softmax.
    assert all(name.endswith("k.bias") for name in silent), silent


def test_a_head_learns_to_tell_clouds_apart():
    network = Discriminator(8, 1, width=16, num_heads=4)
    network.initialize_weights(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        real, fake = torch.randn(2, 16, 10, 8, generator=generator)
        fake[..., 3] += 1.5
        time = torch.randn(16, 8, generator=generator)
        margin = network([real], time) - network([fake], time)
        loss = F.softplus(-margin).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2 and (margin > 0).float().mean() > 0.9


def test_initial_weights_are_reproducible():
    first, second, third = (Discriminator(24, width=16, num_heads=2) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (third, 2)):
        network.initialize_weights(torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.registers[0].register, third.registers[0].register)
    assert not torch.equal(first.registers[0].register, first.registers[1].register)


def test_number_of_parameters_on_the_meta_device():
    dim, width = 5120, 512
    network = Discriminator.for_network(wan_vace_14b(), device="meta")
    per_tap = width + 2 * dim + 2 * (width + 1) * width + 2 * (dim + 1) * width
    joined = 3 * width + dim
    expected = 3 * per_tap + 2 * joined + (joined + 1) * width + width + 1
    assert sum(p.numel() for p in network.parameters()) == expected
    features = [torch.empty(1, 32760, dim, device="meta") for _ in range(3)]
    mask = reference_token_mask((21, 60, 104), 1, device="meta")
    assert network(features, torch.empty(1, dim, device="meta"), mask).shape == (1,)
    with pytest.raises(ValueError, match="meta device"):
        network.initialize_weights()
    tiny = Discriminator.for_network(vdot_tiny())
    assert sum(p.numel() for p in tiny.parameters()) < 120_000
    assert Discriminator.for_network(vdot_tiny(), width=32).head[3].weight.shape == (1, 32)


def test_activations_have_the_weights_precision():
    features, time = random_features()
    network = head()
    exact = network(features, time)
    assert network([one.bfloat16() for one in features], time.bfloat16()).dtype == torch.float32
    low = network.bfloat16()(features, time)
    assert low.dtype == torch.bfloat16 and torch.allclose(low.float(), exact, atol=0.1)


def test_what_does_not_fit_is_refused():
    network, (features, time) = head(), random_features()
    for words, arguments in {
        "features of 2 blocks": (features[:2], time),
        r"features 1 have shape \[2, 11, 24\]": ([features[0], features[1][:, 1:], features[2]], time),
        r"features 0 have shape \[2, 12, 23\]": ([one[..., 1:] for one in features], time),
        r"time embedding has shape \[2, 9\]": (features, time[:, 1:]),
        r"token mask has shape \[1, 11\]": (features, time, torch.ones(11, dtype=torch.bool)),
        "dtype torch.float32": (features, time, torch.ones(12)),
        "without a token": (features, time, torch.tensor([[True] * 12, [False] * 12])),
    }.items():
        with pytest.raises(ValueError, match=words):
            network(*arguments)
    with pytest.raises(ValueError, match="3 heads do not divide"):
        Discriminator(24, width=16, num_heads=3)
    with pytest.raises(ValueError, match="num_taps is 0"):
        Discriminator(24, 0)
    with pytest.raises(ValueError, match="num_layers is 2"):
        default_taps(WanVaceConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=2).num_layers)
