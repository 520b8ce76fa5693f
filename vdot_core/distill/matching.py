"""Score-matching gradients of the generator: DMD's reverse KL and VDOT's optimal transport.

Both compare the same two predictions of the clean latents, the fake score's and the real score's, at one
noise level, and both return a gradient in latent units, so that one weight balances them.

Shape letters: B batch, C channels, T latent frames, h w latents, N = h w points of a frame.
"""

from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ..text import described
from ..transport import OTResult, entropic_ot
from .unrolled import unrolled_gradient

DMD_WEIGHTINGS = ("normalized", "timestep", "none")
OTD_METHODS = ("envelope", "unrolled")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class MatchingGradient:
    """A gradient for `matching_loss`, with diagnostics for the training log.

    Attributes:
        gradient: [B, C, T, h, w] float32; zero on reference frames.
        transport: the transport's solution, frames flattened to B * T (None for DMD).
    """

    gradient: Tensor
    transport: OTResult | None = None


def normalizer(sample: Tensor, real: Tensor, num_reference_latents: int = 0) -> Tensor:
    """1 / mean |x0 - x0_real| per sample, [B, 1, 1, 1, 1]: DMD's weight (Yin et al., CVPR 2024)."""
    difference = (sample.float() - real.float())[:, :, num_reference_latents:].abs()
    mean = difference.mean(dim=(1, 2, 3, 4), keepdim=True)
    # Identical predictions have nothing to match: a floor keeps rounding from being blown up to unit size.
    return 1 / mean.clamp_min(1e-3 * real.float().abs().mean(dim=(1, 2, 3, 4), keepdim=True) + 1e-8)


def dmd_gradient(
    sample: Tensor,
    fake: Tensor,
    real: Tensor,
    *,
    timestep: Tensor | None = None,
    weighting: str = "normalized",
    num_reference_latents: int = 0,
) -> MatchingGradient:
    """Gradient of the reverse KL between the generator's and the teacher's distribution: g = w (fake - real).

    Args:
        sample: [B, C, T, h, w] the generator's clean latents.
        fake: the fake score's prediction of them from x_t; real: the real score's, with guidance. Same shape.
        timestep: [B] in 0..1000, the scores' noise level; needed by weighting 'timestep'.
        weighting: 'normalized' (1 / mean |sample - real|), 'timestep' (t / 1000, as released) or 'none'.
        num_reference_latents: leading latent frames that hold references and are not matched.

    Returns:
        The gradient, detached.

    Raises:
        ValueError: on shapes that differ, or an unknown weighting.
    """
    _check_shapes(sample, fake, real, num_reference_latents)
    gradient = fake.detach().float() - real.detach().float()
    if weighting == "normalized":
        gradient = gradient * normalizer(sample.detach(), real.detach(), num_reference_latents)
    elif weighting == "timestep":
        if timestep is None:
            raise ValueError("weighting 'timestep' needs the timestep [B] at which the scores were evaluated")
        gradient = gradient * (timestep.float() / 1000).view(-1, 1, 1, 1, 1)
    elif weighting != "none":
        raise ValueError(f"weighting is {described(weighting)}; expected one of {', '.join(DMD_WEIGHTINGS)}")
    gradient[:, :, :num_reference_latents] = 0
    return MatchingGradient(gradient)


def otd_gradient(
    sample: Tensor,
    fake: Tensor,
    real: Tensor,
    *,
    eps: float,
    eps_mode: str = "absolute",
    cost: str = "sqeuclidean",
    debias: bool = False,
    rho_fake: float | None = None,
    rho_real: float | None = None,
    tol: float = 1e-3,
    max_iter: int = 200,
    method: str = "envelope",
    pool: int = 1,
    scale: float = 1.0,
    normalized: bool = True,
    num_reference_latents: int = 0,
) -> MatchingGradient:
    """Gradient of entropic optimal transport between the fake and the real prediction, frame by frame.

    The N latent positions of a frame are a cloud of N points in R^C with equal weights. The transport's
    gradient w.r.t. a point is ``2 / N (a_i - T(a_i))`` with T the barycentric projection; ``N / 2`` times it
    is the displacement ``a_i - T(a_i)``: the same units as DMD's ``fake - real``, to which it is equal
    where the plan is the identity. The gradient stops at the prediction; `through_score` pulls it back.
    Frames whose transport did not converge have gradient zero; the result's `transport.converged` names them.

    Args:
        sample, fake, real: as in `dmd_gradient`.
        eps, eps_mode, cost, debias, tol, max_iter: as in `entropic_ot`.
        rho_fake, rho_real: relaxation of each cloud's marginal, in the units of eps; None for a hard one.
        method: 'envelope', the transport's own gradient; or 'unrolled', autograd of <P, C> through max_iter
            iterations as in the authors' release (`unrolled_gradient`), where every frame has norm `scale`.
        pool: average-pool the clouds by this factor; every position of a window gets the window's gradient.
        scale: multiplies the gradient.
        normalized: with 'envelope', divide by mean |sample - real|, as DMD's default does.
        num_reference_latents: leading latent frames that are not matched.

    Returns:
        The gradient, detached, and the transport's diagnostics (none from 'unrolled').

    Raises:
        ValueError: on shapes that differ, an option out of range, or one that 'unrolled' would ignore.
    """
    _check_shapes(sample, fake, real, num_reference_latents)
    if method == "unrolled":
        if (eps_mode, cost, debias, rho_fake, rho_real) != ("absolute", "sqeuclidean", False, None, None):
            raise ValueError(
                f"method 'unrolled' ignores eps_mode {described(eps_mode)}, cost "
                f"{described(cost)}, debias {debias}, rho_fake {rho_fake} and rho_real {rho_real}; "
                "give 'absolute', 'sqeuclidean', False, None and None"
            )
        unrolled = unrolled_gradient(fake, real, eps, max_iter, pool, scale, num_reference_latents)
        return MatchingGradient(unrolled)
    if method != "envelope":
        raise ValueError(f"method is {described(method)}; expected one of {', '.join(OTD_METHODS)}")
    frames = [_pooled(x.detach()[:, :, num_reference_latents:], pool) for x in (fake, real)]
    result = entropic_ot(
        *(rearrange(x, "b c t h w -> (b t) (h w) c") for x in frames),
        eps=eps,
        eps_mode=eps_mode,
        cost=cost,
        debias=debias,
        rho_a=inf if rho_fake is None else rho_fake,
        rho_b=inf if rho_real is None else rho_real,
        tol=tol,
        max_iter=max_iter,
    )
    batch, _, _, height, width = frames[0].shape
    displacement = result.grad_a * (height * width / 2)
    displacement = rearrange(displacement, "(b t) (h w) c -> b c t h w", b=batch, h=height)
    # Where the transport has not converged, its gradient is not the one asked for: it does not steer.
    displacement = displacement * result.converged.view(batch, 1, -1, 1, 1)
    gradient = torch.zeros_like(fake, dtype=torch.float32)
    gradient[:, :, num_reference_latents:] = _unpooled(displacement, pool, fake.shape[-2:])
    if normalized:
        gradient = gradient * normalizer(sample.detach(), real.detach(), num_reference_latents)
    return MatchingGradient(scale * gradient, result)


def through_score(
    gradient: MatchingGradient, fake: Tensor, x_t: Tensor, timestep: Tensor, num_reference_latents: int = 0
) -> MatchingGradient:
    """Pull a gradient w.r.t. the fake prediction back to the sample, as in the paper.

    With x_t = (1 - sigma) x0 + sigma noise, the chain rule gives ``(1 - sigma) (d fake / d x_t)^T g``: one
    backward pass through the fake score, no further evaluation. It is not applied to DMD, whose gradient
    w.r.t. the sample is ``fake - real`` itself.

    Args:
        gradient: what `otd_gradient` returned for this `fake`.
        fake: [B, C, T, h, w] the fake score's prediction of the clean latents, with its graph from x_t
            (evaluated on ``x_t.requires_grad_()``); the graph is freed, the score's parameters get nothing.
        x_t: same shape, the noised sample that the prediction was made from, detached from the generator.
        timestep: [B] in 0..1000.
        num_reference_latents: leading latent frames that hold references; their gradient is zero.

    Returns:
        The gradient w.r.t. the sample, for `matching_loss`, with the same transport.

    Raises:
        ValueError: where `fake` has no graph from `x_t`.
    """
    if not (fake.requires_grad and x_t.requires_grad):
        raise ValueError(
            f"fake.requires_grad is {fake.requires_grad} and x_t.requires_grad {x_t.requires_grad}; evaluate "
            "the fake score on x_t.detach().requires_grad_() with gradients enabled"
        )
    (pulled,) = torch.autograd.grad(fake, x_t, gradient.gradient.to(fake), allow_unused=True)
    if pulled is None:
        raise ValueError("fake does not depend on x_t; pass the tensor that the fake score was evaluated on")
    share = (1 - timestep.to(pulled.device).float() / 1000).view(-1, 1, 1, 1, 1)
    pulled = pulled.float() * share
    pulled[:, :, :num_reference_latents] = 0
    return MatchingGradient(pulled, gradient.transport)


def matching_loss(
    sample: Tensor,
    gradient: Tensor | MatchingGradient,
    num_reference_latents: int = 0,
    reduction: str = "mean",
) -> Tensor:
    """0.5 mean || x0 - stopgrad(x0 - g) ||^2, whose gradient w.r.t. the sample is g / (number of elements).

    Args:
        sample: [B, C, T, h, w] the generator's clean latents, with a graph.
        gradient: same shape, or what `dmd_gradient` and `otd_gradient` return.
        num_reference_latents: leading latent frames that the mean leaves out.
        reduction: 'mean', or as released 'sum': over a sample's elements, still the mean over samples.

    Returns:
        Scalar float32 loss.

    Raises:
        ValueError: on an unknown reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {described(reduction)}; expected one of {', '.join(REDUCTIONS)}")
    if isinstance(gradient, MatchingGradient):
        gradient = gradient.gradient
    sample = sample.float()[:, :, num_reference_latents:]
    target = (sample - gradient[:, :, num_reference_latents:]).detach()
    loss = 0.5 * (sample - target).square().mean()
    return loss * sample[0].numel() if reduction == "sum" else loss


def _pooled(latents: Tensor, factor: int) -> Tensor:
    """Average over windows of h and w; those at the edge, or of a smaller picture, are smaller."""
    window = [min(factor, side) for side in latents.shape[-2:]]
    return F.avg_pool3d(latents, (1, *window), ceil_mode=True) if factor > 1 else latents


def _unpooled(latents: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Every window's value at each of its positions."""
    latents = repeat(latents, "b c t h w -> b c t (h p) (w q)", p=factor, q=factor)
    return latents[..., : size[0], : size[1]]


def _check_shapes(sample: Tensor, fake: Tensor, real: Tensor, num_reference_latents: int) -> None:
    shapes = {tuple(x.shape) for x in (sample, fake, real)}
    if len(shapes) != 1 or sample.ndim != 5:
        got = ", ".join(str(tuple(x.shape)) for x in (sample, fake, real))
        raise ValueError(f"sample, fake and real have shapes {got}; expected one shape [B, C, T, h, w]")
    if not 0 <= num_reference_latents < sample.shape[2]:
        raise ValueError(
            f"num_reference_latents is {num_reference_latents} of {sample.shape[2]} latent frames; "
            "at least one frame must be left to match"
        )
