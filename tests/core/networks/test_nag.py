"""Normalized Attention Guidance against its formula, number by number."""

import numpy as np
import pytest
import torch

from vdot_core.networks import normalized_attention_guidance


def by_hand(positive, negative, scale, tau, alpha):
    """The authors' code, in float64 and in loops (github.com/ChenDarYen/Normalized-Attention-Guidance)."""
    result = np.empty(positive.shape)
    for place in np.ndindex(positive.shape[:-1]):
        plus, minus = positive[place], negative[place]
        guided = plus * scale - minus * (scale - 1)
        ratio = sum(map(abs, guided)) / sum(map(abs, plus))
        guided = guided * min(ratio, tau) / ratio
        result[place] = guided * alpha + plus * (1 - alpha)
    return torch.from_numpy(result)


@pytest.mark.parametrize("scale, tau, alpha", [(11.0, 2.5, 0.25), (2.0, 10.0, 1.0), (5.0, 0.5, 0.5)])
def test_it_is_the_formula(scale, tau, alpha):
    positive, negative = torch.randn(2, 2, 7, 12, generator=torch.Generator().manual_seed(0))
    positive[0, 3] *= 100  # a token whose guidance is not capped, next to some that are
    result = normalized_attention_guidance(positive, negative, scale, tau, alpha)
    expected = by_hand(positive.double().numpy(), negative.double().numpy(), scale, tau, alpha)
    torch.testing.assert_close(result.double(), expected, atol=1e-4, rtol=1e-5)


def test_what_it_leaves_alone():
    positive, negative = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(1))
    for result in (
        normalized_attention_guidance(positive, negative, 1.0),
        normalized_attention_guidance(positive, positive, 11.0),
        normalized_attention_guidance(positive, negative, 11.0, alpha=0.0),
    ):
        torch.testing.assert_close(result, positive, atol=1e-5, rtol=1e-5)
    zeros = normalized_attention_guidance(torch.zeros(1, 5, 8), torch.zeros(1, 5, 8), 11.0)
    assert torch.equal(zeros, torch.zeros(1, 5, 8))


def test_no_token_grows_beyond_tau():
    positive, negative = torch.randn(2, 1, 50, 16, generator=torch.Generator().manual_seed(2))
    result = normalized_attention_guidance(positive, negative * 10, 30.0, tau=2.0, alpha=1.0)
    ratios = result.abs().sum(-1) / positive.abs().sum(-1)
    torch.testing.assert_close(ratios, torch.full((1, 50), 2.0), atol=1e-4, rtol=1e-4)
    half = normalized_attention_guidance(positive.bfloat16(), negative.bfloat16(), 5.0)
    assert half.dtype == torch.bfloat16
