"""Normalized Attention Guidance (arXiv 2505.21179): a negative prompt without a second pass.

B batch, L tokens, D width.
"""

import torch
from torch import Tensor


def normalized_attention_guidance(
    positive: Tensor, negative: Tensor, scale: float, tau: float = 2.5, alpha: float = 0.25
) -> Tensor:
    """Guide a cross-attention's result away from what a negative prompt gives.

    With Z~ = scale Z+ - (scale - 1) Z-, and each token's ratio r = |Z~|_1 / |Z+|_1, the result is
    alpha min(r, tau) / r Z~ + (1 - alpha) Z+. The scale is that of the authors' code, 1 + the paper's.

    Args:
        positive: [B, L, D] result of the attention to the prompt, before its output projection.
        negative: [B, L, D] result of the same queries' attention to the negative prompt.
        scale: of the extrapolation; 1 changes nothing.
        tau: largest ratio of norms.
        alpha: share of the guided result.

    Returns:
        [B, L, D] of positive's dtype.
    """
    guided = torch.lerp(negative, positive, scale)
    before, after = (
        torch.linalg.vector_norm(x, ord=1, dim=-1, keepdim=True, dtype=torch.float32)
        for x in (positive, guided)
    )
    limit = (tau * before / after.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)
    return torch.addcmul(positive * (1 - alpha), guided, (alpha * limit).to(guided.dtype))
