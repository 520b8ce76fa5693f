"""Operations of blocks on each token by itself, in little memory.

B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_TOKENS = 2048
"""Tokens normalized at a time where the result is rounded and gradients are off."""


def rounded(function: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply a function to each token in x's precision, and round the result.

    Args:
        function: [B, L, D] to [B, L, D].
        x: [B, L, D].
        dtype: of the result.

    Returns:
        function(x) in `dtype`; without gradients a few tokens at a time, to hold no full result of x's dtype.
    """
    at_once = x.dtype == dtype or x.shape[1] <= CHUNK_TOKENS
    if at_once or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(x).to(dtype)
    result = torch.empty_like(x, dtype=dtype)
    for source, target in zip(x.split(CHUNK_TOKENS, 1), result.split(CHUNK_TOKENS, 1), strict=True):
        target.copy_(function(source))
    return result


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer-normalize tokens, then scale by 1 + scale and shift.

    Args:
        x: [B, L, D].
        shift: [B or 1, 1, D].
        scale: [B or 1, 1, D].
        eps: of the norm.

    Returns:
        [B, L, D].
    """
    dim = x.shape[-1:]
    if scale.shape[0] == 1:  # one timestep: the modulation is the norm's own affine map, in a single pass
        return F.layer_norm(x, dim, (1 + scale).view(-1), shift.reshape(-1), eps)
    return torch.addcmul(shift, F.layer_norm(x, dim, eps=eps), 1 + scale)


def gelu(x: Tensor) -> Tensor:
    """Tanh-approximated GELU; in place where gradients are off, for this is the network's widest tensor."""
    if torch.is_grad_enabled():
        return F.gelu(x, approximate="tanh")
    return torch.ops.aten.gelu_(x, approximate="tanh")
