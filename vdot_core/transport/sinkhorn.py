"""Streamed Sinkhorn passes: one pass over the cost updates both potentials.

Shape letters: B problems solved together, I J points, R rows of a chunk. Potentials are in units of eps.
"""

import torch

from .anderson import Anderson
from .initial import gaussian_potential
from .problem import MIN_EXPONENT, Exponents, Problem


class Pass:
    """One Gauss-Seidel iteration in a single sweep over the cost.

    With E = exp(f + g - C), numbered as the algorithm's lines:
      1. r_i = sum_j E_ij b_j                       row sums at the old f
      2. f'  = tau_a (f - log r)                    exact row condition for g
      3. c_j = sum_i a_i E_ij exp(f'_i - f_i)       column sums at the new f, from the same E
      4. g'  = tau_b (g - log c)
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.exponents = Exponents(problem)
        self.chunks = problem.row_chunks()

    def __call__(self, f: torch.Tensor, g: torch.Tensor, safe: bool = False):
        """f' [B, I], column sums c [B, J] at (f', g). `safe` subtracts each row's maximum first."""
        problem = self.problem
        weights_b = problem.weights_b[..., None]
        columns = torch.zeros_like(g)
        new_f = torch.empty_like(f)
        self.exponents.bind(f, g)
        for rows in self.chunks:
            exponent = self.exponents.chunk(rows)
            shift = torch.zeros_like(f[:, rows])
            if safe:
                shift = exponent.amax(-1)
                exponent -= shift[..., None]
            kernel = exponent.clamp_(min=MIN_EXPONENT).exp_()
            log_rows = (kernel @ weights_b)[..., 0].log() + shift
            new_f[:, rows] = problem.tau_a * (f[:, rows] - log_rows)
            gain = (new_f[:, rows] - f[:, rows] + shift).exp() * problem.weights_a[:, rows]
            columns += (gain[:, None] @ kernel)[:, 0]
        if not safe and not (columns.isfinite().all() and (columns > 0).all()):
            return self(f, g, safe=True)
        return new_f, columns


def marginal_error(problem: Problem, g: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """[B] L1 distance of the second marginal from its condition; the first marginal's holds exactly."""
    target = torch.where(problem.rho_b.isinf(), torch.ones_like(g), (-g / problem.rho_b).exp())
    return (problem.weights_b * (columns - target).abs()).sum(-1)


def translate(problem: Problem, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Optimal shift of g for relaxed marginals: a large rho stalls without it (Sejourne et al., 2022)."""
    rho_a, rho_b = problem.rho_a, problem.rho_b
    log_mass_a = torch.where(rho_a.isinf(), 0.0, _log_mean(problem.weights_a, -f / rho_a))
    log_mass_b = torch.where(rho_b.isinf(), 0.0, _log_mean(problem.weights_b, -g / rho_b))
    harmonic = 1 / (1 / rho_a + 1 / rho_b)
    shift = torch.where(harmonic.isinf(), 0.0, harmonic * (log_mass_a - log_mass_b))
    return g - shift


def _log_mean(weights: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    return (exponent + weights.log()).logsumexp(-1, keepdim=True)


def iterate(problem: Problem, g: torch.Tensor, tol: float, max_iter: int, memory: int):
    """Run accelerated Sinkhorn from g until every problem's marginal error is at most `tol`.

    Returns:
        f [B, I], g [B, J], columns [B, J] (plan's column sums over the weights), error [B], num_iter [B]. The
        pair satisfies the first marginal's condition exactly.
    """
    result_f, result_g = torch.zeros_like(problem.weights_a), g.clone()
    result_columns, errors = torch.ones_like(g), torch.full_like(g[:, 0], float("inf"))
    num_iter = torch.zeros(g.shape[0], dtype=torch.int64, device=g.device)
    active = torch.arange(g.shape[0], device=g.device)
    f = torch.zeros_like(result_f)
    accelerate, step = Anderson(g, problem.weights_b, memory), Pass(problem)
    for iteration in range(max_iter):
        f, columns = step(f, g, safe=iteration == 0)
        error = marginal_error(problem, g, columns)
        # The last pass's plan is not always the best one: keep the best seen of each problem.
        improved = error < errors[active]
        where = active[improved]
        result_f[where], result_g[where] = f[improved], g[improved]
        result_columns[where], errors[where] = columns[improved], error[improved]
        num_iter[active] += 1
        open_ = (error > tol) | ~error.isfinite()
        if not open_.any():
            break
        mapped = translate(problem, f, problem.tau_b * (g - columns.log()))
        g = accelerate.next(g, mapped, error)
        if not open_.all():
            keep = open_.nonzero()[:, 0]
            problem, f, g, active = problem.select(keep), f[keep], g[keep], active[keep]
            accelerate.select(keep)
            step = Pass(problem)
    return result_f, result_g, result_columns, errors, num_iter


def iterate_self(problem: Problem, tol: float, max_iter: int):
    """Potential [B, I] of a cloud's transport onto itself, by the averaged update f <- (f + T f) / 2.

    Returns:
        f [B, I] and the mass [B] of its plan.
    """
    weights = problem.weights_a[..., None]
    exponents, chunks = Exponents(problem), problem.row_chunks()
    f = gaussian_potential(problem)
    for _ in range(max_iter):
        exponents.bind(f, f)
        mapped = torch.empty_like(f)
        for rows in chunks:
            exponent = exponents.chunk(rows)
            shift = exponent.amax(-1)
            kernel = (exponent - shift[..., None]).clamp_(min=MIN_EXPONENT).exp_()
            mapped[:, rows] = f[:, rows] - (kernel @ weights)[..., 0].log() - shift
        mapped = problem.tau_a * mapped
        row_mass = (f - mapped / problem.tau_a).exp()
        change = (problem.weights_a * (mapped - f).abs()).sum(-1)
        if (change <= tol).all():
            break
        f = (f + mapped) / 2
    return f, (problem.weights_a * row_mass).sum(-1)


def plan_gradient(problem: Problem, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """[B, I, D] sum_j P_ij d C(a_i, b_j) / d a_i, in the problem's units."""
    gradient = torch.empty_like(problem.a)
    exponents = Exponents(problem).bind(f, g)
    for rows in problem.row_chunks():
        plan = exponents.chunk(rows).clamp_(min=MIN_EXPONENT).exp_() * problem.weights_b[:, None]
        plan *= problem.weights_a[:, rows, None]
        points = problem.a[:, rows]
        if problem.cost == "sqeuclidean":
            gradient[:, rows] = 2 * (plan.sum(-1, keepdim=True) * points - plan @ problem.b)
        else:
            for axis in range(points.shape[-1]):
                sign = torch.sign(points[..., axis, None] - problem.b[:, None, :, axis])
                gradient[:, rows, axis] = (plan * sign).sum(-1)
    return gradient


def dual_value(problem: Problem, f: torch.Tensor, g: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """[B] regularised dual objective in units of the mean cost."""
    total = -(mass - 1)
    for weights, potential, rho in (
        (problem.weights_a, f, problem.rho_a),
        (problem.weights_b, g, problem.rho_b),
    ):
        relaxed = -rho * torch.expm1(-potential / rho)
        total = total + (weights * torch.where(rho.isinf(), potential, relaxed)).sum(-1)
    return total * problem.eps[:, 0]
