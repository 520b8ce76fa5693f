"""Entropic optimal transport with analytic gradients, in bounded memory.

Shape letters: F frames (independent problems), I J points, D coordinates.
"""

import logging
from functools import cache
from math import inf

import torch

from ..text import described
from .flash import FlashStep, why_not_flash
from .initial import gaussian_potential
from .problem import Problem, make_problem
from .result import OTResult, join
from .sinkhorn import SinkhornStep, dual_value, iterate_self, solve_pair
from .tiling import group_size

logger = logging.getLogger("vdot")

CHOICES = {
    "eps_mode": ("absolute", "mean_cost"),
    "cost": ("sqeuclidean", "l1"),
    "backend": ("auto", "torch", "flash"),
}


@torch.no_grad()
def entropic_ot(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    eps: float,
    eps_mode: str = "absolute",
    weights_a: torch.Tensor | None = None,
    weights_b: torch.Tensor | None = None,
    rho_a: float = inf,
    rho_b: float = inf,
    cost: str = "sqeuclidean",
    tol: float = 1e-3,
    max_iter: int = 200,
    anderson: int = 8,
    init: str | tuple[torch.Tensor, torch.Tensor] = "gaussian",
    debias: bool = False,
    backend: str = "auto",
) -> OTResult:
    """Solve min_P <P, C> + eps KL(P | a (x) b), frame by frame, with its gradient w.r.t. the first cloud.

    Balanced by default; a finite rho replaces that side's hard marginal by ``rho KL(marginal | weights)``
    (Chizat et al., 2018). The gradient is the envelope theorem's, never backpropagation through iterations.

    Args:
        a: [F, I, D] float, first clouds (any float dtype; solved in float32).
        b: [F, J, D] float, second clouds.
        eps: regularization > 0, in units of the cost or, with eps_mode 'mean_cost', a share of the mean cost.
        eps_mode: 'absolute' or 'mean_cost'.
        weights_a: [F, I] or [I] positive weights (normalized here); uniform when None. weights_b
            likewise, [F, J] or [J].
        rho_a, rho_b: marginal relaxation in the units of eps, inf for a hard marginal.
        cost: 'sqeuclidean' (C = |a - b|^2) or 'l1' (C = sum |a - b|).
        tol: marginal L1 error at which a frame stops.
        max_iter: most passes over the cost; 0 < max_iter.
        anderson: steps that Anderson acceleration combines; 0 is the plain iteration. Frames that it does not
            bring to `tol` get up to max_iter plain iterations more, and the better end of both.
        init: 'gaussian' (closed form between Gaussian fits), 'zeros', or potentials (f [F, I], g [F, J]), of
            which g is used, in units of the cost.
        debias: solve for the Sinkhorn divergence S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2, whose
            gradient w.r.t. a is that of OT(a, b) less that of OT(a, a) by its first argument. At a = b it is
            0 only if both marginals are relaxed equally: rho_a must equal rho_b (Sejourne et al., 2019).
        backend: 'torch' (CPU and CUDA); 'flash', the kernels of the package flash-sinkhorn (CUDA and the
            squared cost only); or 'auto', which is 'flash' where that can be used and 'torch' elsewhere. The
            result says which it was. Only how a pass over the cost is computed differs: accuracy float32
            in both, options, units and stopping rule the same.

    Returns:
        An OTResult, all float32 on a's device.

    Raises:
        ValueError: on wrong shapes, parameters out of range, or a backend that is not available.
    """
    _check(a, b, eps, rho_a, rho_b, tol, max_iter, anderson, eps_mode=eps_mode, cost=cost, backend=backend)
    if debias and rho_a != rho_b:
        raise ValueError(
            f"debias is set and rho_a is {rho_a}, rho_b {rho_b}; the gradient between equal clouds would not "
            "be 0: give both the same, or debias=False"
        )
    _check_init(init, (a.shape[0], b.shape[1]))
    backend = _choose_backend(backend, a.device, cost)
    num_frames, num_a, _ = a.shape
    weights_a = _weights("weights_a", weights_a, num_frames, num_a, a.device)
    weights_b = _weights("weights_b", weights_b, num_frames, b.shape[1], a.device)
    valid = a.isfinite().flatten(1).all(1) & b.isfinite().flatten(1).all(1)
    if not valid.all():
        num_invalid = int((~valid).sum())
        logger.warning("transport: %d of %d frames hold NaN or infinity: left out", num_invalid, num_frames)
    make_step = FlashStep if backend == "flash" else SinkhornStep
    options = (eps, eps_mode, rho_a, rho_b, cost)
    results, num_floored = [], 0
    together = group_size(a.device.type, num_frames, num_a, b.shape[1])
    for first in range(0, num_frames, together):
        group = slice(first, first + together)
        usable = valid[group]
        clouds = (x[group].masked_fill(~usable[:, None, None], 0) for x in (a, b))
        problem, floored = make_problem(*clouds, weights_a[group], weights_b[group], *options)
        num_floored += int((floored & usable).sum())
        start = _initial_potential(init, group, problem)
        solution = _solve(problem, make_step, start, tol, max_iter, anderson, debias)
        results.append(_result(problem, usable, tol, backend, *solution))
    if num_floored:
        logger.warning("transport: eps raised to 1e-5 of the mean cost in %d frames", num_floored)
    return join(results)


def _choose_backend(backend: str, device: torch.device, cost: str) -> str:
    """'torch' or 'flash'; ValueError if 'flash' was requested and is not available."""
    if backend == "torch":
        return backend
    reason = why_not_flash(device, cost)
    if reason and backend == "flash":
        raise ValueError(f"backend 'flash' {reason}; or use backend='torch' or 'auto'")
    if reason and device.type == "cuda":
        _say_once(f"transport: solved by torch, since backend 'flash' {reason}")
    return "torch" if reason else "flash"


@cache
def _say_once(line: str) -> None:
    logger.info(line)


def _solve(problem: Problem, make_step, g, tol, max_iter, anderson, debias):
    """Potentials, gradient and value of a batch of problems, in the problem's own units."""
    step = make_step(problem)
    f, g, columns, error, num_iter = solve_pair(problem, step, g, tol, max_iter, anderson)
    if step.problem is not problem:
        step.restart(problem)
    gradient = step.gradient(f, g)
    mass = (problem.weights_b * columns).sum(-1)
    value = dual_value(problem, f, g, mass)
    if debias:
        own = problem.self_problem()
        step.restart(own)
        potential, own_mass, own_error = iterate_self(own, step, tol, max_iter)
        gradient = gradient - step.gradient(potential, potential)
        value = value - dual_value(own, potential, potential, own_mass) / 2
        other = problem.swapped().self_problem()
        step.restart(other)
        potential, other_mass, other_error = iterate_self(other, step, tol, max_iter)
        value = value - dual_value(other, potential, potential, other_mass) / 2
        error = torch.maximum(error, torch.maximum(own_error, other_error))
    return f, g, gradient, value, error, num_iter


def _result(problem: Problem, valid, tol, backend, f, g, gradient, value, error, num_iter) -> OTResult:
    """Back to the caller's units; frames that were not valid become zero."""
    eps = problem.eps[:, 0].double() * problem.scale
    valid = valid & gradient.isfinite().flatten(1).all(1) & value.isfinite()
    slope = problem.scale / problem.length

    def restore(x: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        shape = (-1,) + (1,) * (x.ndim - 1)
        x = x.double() * unit.view(shape)
        return torch.where(valid.view(shape), x, torch.zeros_like(x)).float()

    return OTResult(
        f=restore(f, eps),
        g=restore(g, eps),
        grad_a=restore(gradient, slope),
        value=restore(value, problem.scale),
        num_iter=num_iter,
        marginal_error=error,
        converged=(error <= tol) & valid,
        valid=valid,
        eps=eps.float(),
        backend=backend,
    )


def _initial_potential(init, group: slice, problem: Problem) -> torch.Tensor:
    """[B, J] starting potential of the second cloud in these frames, in units of eps."""
    if isinstance(init, tuple):
        eps = problem.eps.double() * problem.scale[:, None]
        return (init[1][group].double() / eps).float()
    return torch.zeros_like(problem.weights_b) if init == "zeros" else gaussian_potential(problem)


def _check_init(init, expected: tuple[int, int]) -> None:
    if isinstance(init, tuple):
        if len(init) != 2 or tuple(init[1].shape) != expected:
            raise ValueError(
                f"init has potentials {[tuple(x.shape) for x in init]}; give (f, g), g of {expected}"
            )
    elif init not in ("zeros", "gaussian"):
        raise ValueError(f"init is {described(init)}; expected 'gaussian', 'zeros' or potentials (f, g)")


def _weights(name: str, weights, num_frames: int, num_points: int, device) -> torch.Tensor:
    """[F, N] float64 weights that sum to 1 per frame."""
    if weights is None:
        return torch.full((num_frames, num_points), 1 / num_points, dtype=torch.float64, device=device)
    weights = weights.to(device=device, dtype=torch.float64)
    if weights.shape not in ((num_points,), (num_frames, num_points)):
        shape = tuple(weights.shape)
        raise ValueError(f"{name} has shape {shape}; expected {(num_frames, num_points)} or {(num_points,)}")
    if not (weights.isfinite().all() and (weights > 0).all()):
        raise ValueError(f"{name} must be finite and positive; leave points of no weight out of the cloud")
    weights = weights.expand(num_frames, num_points)
    return weights / weights.sum(-1, keepdim=True)


def _check(a, b, eps, rho_a, rho_b, tol, max_iter, anderson, **choices) -> None:
    if (
        a.ndim != 3
        or b.ndim != 3
        or a.shape[0] != b.shape[0]
        or a.shape[2] != b.shape[2]
        or 0 in a.shape + b.shape
    ):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(
            f"clouds have shapes {shapes}; expected [F, I, D] and [F, J, D] with the same F and D"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"clouds are {a.dtype} and {b.dtype}; give floating-point points")
    if a.device != b.device:
        raise ValueError(f"clouds are on {a.device} and {b.device}; move them to one device")
    for name, value in {"eps": eps, "rho_a": rho_a, "rho_b": rho_b, "tol": tol, "max_iter": max_iter}.items():
        if not value > 0 or (name in ("eps", "tol") and not value < inf):
            raise ValueError(f"{name} is {value}; it must be positive")
    if anderson < 0:
        raise ValueError(
            f"anderson is {anderson}; give 0 (plain iteration) or the number of steps to combine"
        )
    for name, value in choices.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name} is {described(value)}; expected one of {', '.join(CHOICES[name])}")
