"""Low-precision weights: how exact the network is, against float32 and the arithmetic of Wan's own code."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, random_network, relative
from tests.core.networks.official import OfficialArithmetic
from vdot_core.checkpoints import load_network
from vdot_core.networks import Hooks, WanVace, WanVaceConfig, pointwise

CONFIG = SIZES["narrow heads"]
STUDENT = Path(__file__).parents[3] / "assets" / "vdot_tiny_student.safetensors"
DEEP = WanVaceConfig(
    dim=128, ffn_dim=256, num_heads=2, num_layers=24, vace_layers=(0, 8, 16), text_dim=32, freq_dim=64
)


def rounded(network: WanVace, dtype: torch.dtype) -> tuple[WanVace, WanVace]:
    """(float32, dtype) networks of the same weights, which `dtype` can hold."""
    low = copy.deepcopy(network).to(dtype).requires_grad_(False)
    return copy.deepcopy(low).float(), low


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("source", ["random", "student"])
def test_the_error_is_that_of_the_official_arithmetic(source, dtype):
    network = random_network(DEEP) if source == "random" else load_network(STUDENT).float()
    exact, low = rounded(network, dtype)
    arguments = inputs(network.config, frames=3, height=8, width=8)
    expected = exact(*arguments)
    official = relative(OfficialArithmetic(low, dtype)(*arguments), expected)
    coarse = relative(OfficialArithmetic(low, dtype, residual=dtype)(*arguments), expected)
    assert relative(OfficialArithmetic(low, torch.float32)(*arguments), expected) < 1e-5
    # A residual rounded after every layer is at least 1.8 times as far off.
    assert coarse > 1.8 * official
    assert relative(low(*arguments), expected) < 1.4 * official
    low.residual_dtype = dtype
    assert relative(low(*arguments), expected) > 1.6 * official


def test_tokens_are_float32_and_layers_compute_in_the_dtype_of_the_weights():
    dtypes = {}

    class Look(Hooks):
        def attention(self, q, k, v, num_heads):
            dtypes.setdefault("attention", set()).update((q.dtype, k.dtype, v.dtype))
            return super().attention(q, k, v, num_heads)

        def run_block(self, index, block, x, modulation, text, rope):
            dtypes["tokens"], dtypes["modulation"], dtypes["text"] = x.dtype, modulation.dtype, text.dtype
            return super().run_block(index, block, x, modulation, text, rope)

    _, low = rounded(random_network(CONFIG), torch.bfloat16)
    _, (feature,) = low(*inputs(CONFIG), taps=(3,), hooks=Look())
    assert dtypes == {
        "attention": {torch.bfloat16},
        "tokens": torch.float32,
        "modulation": torch.float32,
        "text": torch.bfloat16,
    }
    assert feature.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_in_place_and_in_chunks_changes_no_bit(dtype, monkeypatch):
    class Keep(Hooks):
        in_place = False

        def __init__(self):
            super().__init__()
            self.tokens = []

        def run_block(self, index, block, x, *rest):
            self.tokens.append((x, x.clone()))
            return super().run_block(index, block, x, *rest)

    _, network = rounded(random_network(CONFIG), dtype)
    arguments, keep = inputs(CONFIG, batch=2, num_contexts=2), Keep()
    scale = torch.tensor([1.0, 0.5])
    with torch.no_grad():
        expected, features = network(*arguments, scale, taps=(0, 1, 3), hooks=keep)
        assert all(torch.equal(tokens, copied) for tokens, copied in keep.tokens)
        monkeypatch.setattr(pointwise, "CHUNK_TOKENS", 5)
        velocity, again = network(*arguments, scale, taps=(0, 1, 3))
        assert torch.equal(velocity, expected)
        assert all(torch.equal(one, other) for one, other in zip(again, features, strict=True))
        assert torch.equal(network(*arguments, scale), expected)


def test_tokens_beyond_float16_stay_finite():
    config = replace(CONFIG, vace_layers=())
    network = random_network(config, dtype=torch.float16)
    with torch.no_grad():
        network.patch_embedding.bias[0] = 2e5
    x, timestep, text, _ = inputs(config)
    exact = copy.deepcopy(network).float()
    with torch.no_grad():
        velocity = network(x, timestep, text)
        assert velocity.isfinite().all() and relative(velocity, exact(x, timestep, text)) < 1e-2
