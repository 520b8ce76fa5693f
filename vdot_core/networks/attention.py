"""The one function every attention of the network goes through, and its default."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

AttentionFunction = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""`attention(q [B, L, D], k [B, S, D], v [B, S, D], num_heads) -> [B, L, D]`, without a mask."""


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Attend with torch's scaled_dot_product_attention.

    Args:
        q: [B, L, D] queries, heads side by side in D.
        k: [B, S, D] keys.
        v: [B, S, D] values.
        num_heads: heads that D is split into.

    Returns:
        [B, L, D].
    """
    q, k, v = (rearrange(x, "b l (n d) -> b n l d", n=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b n l d -> b l (n d)")
