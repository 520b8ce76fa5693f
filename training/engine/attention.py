"""Attention for training on CPUs."""

import torch
from einops import rearrange
from torch import Tensor


def batched_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Attention by two batched products: bfloat16's fused backward pass is ten times slower on a CPU.

    Args:
        q: [B, L, D]; k, v: [B, S, D]; heads side by side in D.
        num_heads: Heads that D is split into.

    Returns:
        [B, L, D].
    """
    q, k, v = (rearrange(x, "b l (n d) -> (b n) l d", n=num_heads) for x in (q, k, v))
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return rearrange(torch.bmm(weights, v), "(b n) l d -> b l (n d)", n=num_heads)
