"""The optimal-transport gradient as the authors' release computes it.

It differentiates the plan's cost <P, C> through the unrolled iterations, which is not the transport's own
gradient; `vdot_core.transport` has that one.

Shape letters: B batch, C channels, T latent frames, h w latents, N points of a frame.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def _plan_cost(a: Tensor, b: Tensor, eps: float, iterations: int) -> Tensor:
    """<P, C> of [N, C] clouds after `iterations` log-domain Sinkhorn iterations, with its graph."""
    cost = _squared(a, b)
    weight = -math.log(len(a))
    f, g = a.new_zeros(len(a)), a.new_zeros(len(b))
    for _ in range(iterations):
        f = eps * (weight - torch.logsumexp((g[None] - cost) / eps, dim=1))
        g = eps * (weight - torch.logsumexp((f[:, None] - cost) / eps, dim=0))
    plan = torch.exp((f[:, None] + g[None] - cost) / eps)
    return (plan * cost).sum()


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances whose derivative at equal points is finite."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp_min(0)


def unrolled_gradient(
    fake: Tensor,
    real: Tensor,
    eps: float,
    iterations: int,
    pool: int = 1,
    scale: float = 1.0,
    num_reference_latents: int = 0,
) -> Tensor:
    """Gradient of the plan's cost w.r.t. the fake prediction, frame by frame, each of norm `scale`.

    Args:
        fake, real: [B, C, T, h, w] predictions of the clean latents.
        eps: regularization, in units of the squared distance.
        iterations: number of unrolled iterations; a frame keeps three N x N matrices of each.
        pool: average-pool h and w by this factor first.
        scale: norm of a frame's gradient.
        num_reference_latents: leading latent frames that are not matched; their gradient is zero.

    Returns:
        [B, C, T, h, w] float32, without a graph.
    """
    gradient = torch.zeros_like(fake, dtype=torch.float32)
    for sample in range(fake.shape[0]):
        for frame in range(num_reference_latents, fake.shape[2]):
            with torch.enable_grad():
                leaf = fake[sample, :, frame].detach().float().requires_grad_()
                clouds = [
                    rearrange(
                        F.avg_pool2d(x[None], [min(pool, side) for side in x.shape[-2:]], ceil_mode=True),
                        "1 c h w -> (h w) c",
                    )
                    for x in (leaf, real[sample, :, frame].detach().float())
                ]
                one = torch.autograd.grad(_plan_cost(*clouds, eps, iterations), leaf)[0]
            # As released: every frame gets the full norm, even one where only rounding differs. The floor
            # only keeps a gradient of zero from becoming NaN.
            gradient[sample, :, frame] = scale * one / one.norm().clamp_min(1e-8)
    return gradient
