"""Rotary positions: properties, and diffusers' table."""

import pytest
import torch

from vdot_core.networks import apply_rotary, rotary_table
from vdot_core.networks.rope import axes_dims, grid_table

GRID = (3, 4, 5)


def positions(grid, shift=0.0):
    return tuple(torch.arange(size) + shift for size in grid)


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_equals_diffusers(head_dim):
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    cos, sin = WanRotaryPosEmbed(head_dim, (1, 2, 2), 64)(torch.zeros(1, 16, 3, 8, 10))
    turns = grid_table(GRID, head_dim, torch.device("cpu")).turns
    torch.testing.assert_close(turns[..., 0], cos[..., 0::2].float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(turns[..., 1], sin[..., 1::2].float(), atol=1e-6, rtol=0)
    assert sum(axes_dims(head_dim)) == head_dim


def test_only_relative_positions_matter():
    q, k = torch.randn(2, 1, 60, 2, 64).unbind(0)
    scores = []
    for shift in (0.0, 7.25):
        table = rotary_table(positions(GRID, shift), 64)
        scores.append(torch.einsum("blnd,bsnd->bnls", apply_rotary(q, table), apply_rotary(k, table)))
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)
    assert (scores[0] - torch.einsum("blnd,bsnd->bnls", q, k)).abs().max() > 1


def test_lengths_are_kept_and_bfloat16_is_rotated_in_float32():
    x = torch.randn(1, 60, 2, 64)
    table = rotary_table(positions(GRID), 64)
    torch.testing.assert_close(apply_rotary(x, table).norm(dim=-1), x.norm(dim=-1))
    rounded = x.bfloat16()
    expected = apply_rotary(rounded.float(), table).bfloat16()
    assert torch.equal(apply_rotary(rounded, table), expected)


def test_real_form_for_compilers_equals_the_complex_one(monkeypatch):
    x = torch.randn(2, 60, 2, 64, requires_grad=True)
    table = rotary_table(positions(GRID), 64)
    eager = apply_rotary(x, table)
    (gradient,) = torch.autograd.grad(eager.square().sum() + eager.sum(), x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    traced = apply_rotary(x, table)
    torch.testing.assert_close(traced, eager)
    torch.testing.assert_close(torch.autograd.grad(traced.square().sum() + traced.sum(), x)[0], gradient)


def test_a_table_made_in_inference_mode_serves_training():
    grid, cpu = (2, 3, 7), torch.device("cpu")
    with torch.inference_mode():
        table = grid_table(grid, 32, cpu)
    assert grid_table(grid, 32, cpu) is table
    x = torch.randn(1, 42, 1, 32, requires_grad=True)
    apply_rotary(x, table).sum().backward()
    assert x.grad is not None
