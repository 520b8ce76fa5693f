"""Methods compared by benchmarks/transport.py: a float64 oracle, ours, the release's, and peers.

Every method is a function of clouds a [N, D], b [N, D], eps and a number of iterations. It computes what a
training step needs, potentials and the gradient w.r.t. a, as a Solution in this project's convention:
C = |a - b|^2, P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), weights 1 / N.
"""

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vdot_core.transport import entropic_ot
from vdot_core.transport.anderson import Anderson

INSTALL = "python dev.py bench transport --install-peers"
CHUNK = 512


@dataclass(frozen=True)
class Solution:
    """Potentials [N] and the gradient [N, D] that a method gave."""

    f: torch.Tensor
    g: torch.Tensor
    gradient: torch.Tensor


def clouds(kind: str, num_points: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clouds [N, 16] of standard deviation about 1.

    'indep': two independent Gaussian clouds. 'real': a smooth field as of a latent frame, and the same with a
    drift and noise, at a mean squared distance of 2.06 between the pairs. 'small': likewise, at 0.10.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    if kind == "indep":
        return normal(num_points, 16), normal(num_points, 16)
    height = max(n for n in range(1, math.isqrt(num_points) + 1) if num_points % n == 0)
    size = (height, num_points // height)
    smooth = F.interpolate(normal(1, 16, 10, 16), size=size, mode="bicubic")[0].flatten(1).T
    a = 0.995 * smooth / smooth.std() + 0.1 * normal(num_points, 16)
    change = normal(num_points, 16) + normal(1, 16)
    target = {"real": 2.06, "small": 0.10}[kind]
    return a, a + change * (target / change.square().sum(1).mean()).sqrt()


def log_plan(a, b, f, g, eps: float) -> torch.Tensor:
    """log (N P) of some rows: float64 [R, N], for a and f of those rows."""
    a, b, f, g = (x.double() for x in (a, b, f, g))
    cost = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    # Denormal numbers would make every product with the plan many times slower.
    return ((f[:, None] + g - cost) / eps - math.log(len(b))).clamp_(min=-300)


def marginal_error(a, b, solution: Solution, eps: float) -> float:
    """Larger of the two marginals' L1 errors, in float64."""
    rows, columns = [], torch.zeros(len(b), dtype=torch.float64)
    for part, f in zip(a.split(CHUNK), solution.f.split(CHUNK), strict=True):
        plan = log_plan(part, b, f, solution.g, eps).exp() / len(a)
        rows.append(plan.sum(1))
        columns += plan.sum(0)
    return max((x - 1 / len(x)).abs().sum().item() for x in (torch.cat(rows), columns))


def oracle(a, b, eps: float, max_iter: int = 2000, tol: float = 1e-8) -> tuple[torch.Tensor, float]:
    """Gradient in float64 of the converged problem, and the marginal error that was reached.

    Scalings of a dense float64 kernel from our solution on, accelerated: plain iterations have a long tail.
    """
    start = entropic_ot(a[None], b[None], eps=eps, tol=1e-4, max_iter=1000, backend="torch")
    f, g = start.f[0].double(), start.g[0].double()
    kernel, anchor, base = None, g, f
    accelerate = Anderson(g[None] / eps, torch.full((1, len(b)), 1 / len(b)), 8)
    for _ in range(max_iter):
        if kernel is None or (g - anchor).abs().max() > 30 * eps:
            kernel, anchor, base = log_plan(a, b, f, g, eps).exp_(), g, f
        v = ((g - anchor) / eps).exp()
        u = 1 / (kernel @ v)
        columns = v * (kernel.T @ u)
        f, error = base + eps * u.log(), (columns - 1).abs().mean()
        if error < tol:
            break
        mapped = g / eps - columns.log()
        g = eps * accelerate.next(g[None] / eps, mapped[None], error[None])[0]
    plan = log_plan(a, b, f, g, eps).exp_() / len(a)
    return 2 * (plan.sum(1, keepdim=True) * a - plan @ b.double()), error.item()


def ours(a, b, eps: float, iterations: int | None) -> Solution:
    """Plain iterations from zero, as in the other methods; with None the defaults, to a tolerance."""
    options = {"tol": 1e-3, "max_iter": 1000}
    if iterations:
        options = {"tol": 1e-30, "max_iter": iterations, "anderson": 0, "init": "zeros"}
    result = entropic_ot(a[None], b[None], eps=eps, backend="torch", **options)
    return Solution(result.f[0], result.g[0], result.grad_a[0])


def ours_debiased(a, b, eps: float, iterations: int | None) -> Solution:
    """Training's default: debiased, to a tolerance, an eps that is a share of the mean cost.

    The eps and the number of iterations given are those of the others, and not used.
    """
    options = {"eps": 0.05, "eps_mode": "mean_cost", "debias": True, "tol": 1e-3, "max_iter": 200}
    result = entropic_ot(a[None], b[None], backend="torch", **options)
    return Solution(result.f[0], result.g[0], result.grad_a[0])


def release(a, b, eps: float, iterations: int) -> Solution:
    """The released code's method: autograd of <P, C> through unrolled log-domain iterations."""
    a = a.clone().requires_grad_()
    cost = (a[:, None] - b[None]).square().sum(-1)
    log_kernel, log_weight = -cost / eps, -math.log(len(a))
    u = v = torch.zeros(len(a))
    for _ in range(iterations):
        u = log_weight - (log_kernel + v).logsumexp(1)
        v = log_weight - (log_kernel + u[:, None]).logsumexp(0)
    plan = (log_kernel + u[:, None] + v).exp()
    (gradient,) = torch.autograd.grad((plan * cost).sum(), a)
    return Solution(eps * (u.detach() - log_weight), eps * (v.detach() - log_weight), gradient)


def pot_log(a, b, eps: float, iterations: int) -> Solution:
    """POT's sinkhorn_log, numpy in float32."""
    import numpy as np
    import ot

    x, y = a.numpy(), b.numpy()
    weights = np.full(len(x), 1 / len(x), dtype=np.float32)
    options = {"numItermax": iterations, "stopThr": 0, "log": True, "warn": False}
    plan, log = ot.bregman.sinkhorn_log(weights, weights, ot.dist(x, y), eps, **options)
    gradient = 2 * (plan.sum(1, keepdims=True) * x - plan @ y)
    f, g = (eps * (torch.from_numpy(log[k]) + math.log(len(x))) for k in ("log_u", "log_v"))
    return Solution(f, g, torch.from_numpy(gradient))


def pot_lazy(a, b, eps: float, iterations: int) -> Solution:
    """POT's lazy sinkhorn (ot.solve_sample(lazy=True)), numpy in float32, batches of 100 rows."""
    import ot

    x, y = a.numpy(), b.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was not asked to converge
        result = ot.solve_sample(x, y, reg=eps, lazy=True, max_iter=iterations, tol=0)
    rows = [result.lazy_plan[i : i + 100] for i in range(0, len(x), 100)]
    gradient = torch.cat(
        [
            2 * torch.from_numpy(p.sum(1, keepdims=True) * x[100 * k : 100 * k + 100] - p @ y)
            for k, p in enumerate(rows)
        ]
    )
    f, g = (eps * (torch.from_numpy(p) + math.log(len(x))) for p in result.potentials)
    return Solution(f, g, gradient)


def geomloss(a, b, eps: float, iterations: int) -> Solution:
    """geomloss's SamplesLoss, tensorized, scaling 0.9: its own annealing decides the number of iterations.

    Its cost is |a - b|^2 / 2: the same problem at half of everything.
    """
    from geomloss import SamplesLoss

    options = {"p": 2, "blur": math.sqrt(eps / 2), "scaling": 0.9, "debias": False, "backend": "tensorized"}
    a = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(2 * SamplesLoss("sinkhorn", **options)(a, b), a)
    f, g = SamplesLoss("sinkhorn", potentials=True, **options)(a.detach(), b)
    return Solution(2 * f.flatten(), 2 * g.flatten(), gradient)


def ott(a, b, eps: float, iterations: int) -> Solution:
    """ott-jax on a dense cost, log domain, compiled, gradient from the plan included."""
    f, g, gradient = _ott_program(iterations)(a.numpy(), b.numpy(), eps)
    return Solution(*(torch.from_numpy(_writable(x)) for x in (f, g, gradient)))


def _writable(x):
    import numpy as np

    return np.array(x)


_COMPILED: dict[int, Callable] = {}


def _ott_program(iterations: int) -> Callable:
    """One compiled program for each number of iterations, as a training loop would have it."""
    if iterations not in _COMPILED:
        import jax
        import jax.numpy as jnp
        from ott.geometry.geometry import Geometry
        from ott.problems.linear.linear_problem import LinearProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn

        solver = Sinkhorn(threshold=-1.0, min_iterations=iterations, max_iterations=iterations)

        @jax.jit
        def solve(x, y, eps):
            cost = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
            out = solver(LinearProblem(Geometry(cost_matrix=cost, epsilon=eps)))
            plan = jnp.exp((out.f[:, None] + out.g[None] - cost) / eps)
            log_size = eps * jnp.log(x.shape[0])
            return out.f + log_size, out.g + log_size, 2 * (plan.sum(1, keepdims=True) * x - plan @ y)

        _COMPILED[iterations] = solve
    return _COMPILED[iterations]


METHODS = {
    "ours": (ours, ()),
    "the release, forward and backward": (release, ()),
    "POT sinkhorn_log": (pot_log, ("ot",)),
    "POT lazy": (pot_lazy, ("ot",)),
    "geomloss tensorized": (geomloss, ("geomloss",)),
    "ott-jax dense": (ott, ("jax", "ott")),
}

# Measured for its memory alone: it solves three problems, so that its time is not the others'.
DEBIASED = "ours, debiased"
MEASURED = {**{name: method for name, (method, _) in METHODS.items()}, DEBIASED: ours_debiased}


def available() -> tuple[dict[str, Callable], dict[str, str]]:
    """The methods that can run, and for each other what its packages are and how to get them."""
    methods, missing = {}, {}
    for name, (method, packages) in METHODS.items():
        absent = [package for package in packages if importlib.util.find_spec(package) is None]
        if absent:
            missing[name] = f"not installed ({', '.join(absent)}): {INSTALL}"
        else:
            methods[name] = method
    return methods, missing
