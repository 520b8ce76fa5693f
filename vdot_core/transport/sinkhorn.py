"""Streamed Sinkhorn passes: one pass over the cost updates both potentials.

Shape letters: B problems solved together, I J points, R rows of a chunk. Potentials are in units of eps.
"""

import torch

from .anderson import Anderson
from .gibbs import GibbsKernel
from .initial import gaussian_potential
from .problem import Problem
from .tiling import Tiling

# A marginal error at which acceleration ends, even if `tol` is smaller.
NEARLY_SOLVED = 1e-4


class SinkhornStep:
    """One Gauss-Seidel iteration in a single sweep over the cost.

    With E = exp(f + g - C) = K exp(f - f0) exp(g - g0), numbered as the algorithm's lines:
      1. r_i = sum_j K_ij exp(g_j - g0_j) b_j       row sums, at f0
      2. f'  = tau_a (f0 - log r)                   exact row condition for g
      3. c_j = exp(g_j - g0_j) sum_i a_i K_ij exp(f'_i - f0_i)     column sums at the new f, from the same K
      4. g'  = tau_b (g - log c)
    """

    def __init__(self, problem: Problem):
        self.memory = problem.a.new_empty(0)
        self.restart(problem)

    def restart(self, problem: Problem) -> None:
        """Change to another problem, in the same memory where that is large enough."""
        self.problem, self.kernel = problem, None
        elements = sum(Tiling.of(*problem.size).buffers)
        if len(self.memory) < elements:
            self.memory = None  # freed before its replacement is allocated
            self.memory = problem.a.new_empty(elements)
        self.kernel = GibbsKernel(problem, self.memory)

    def __call__(self, f: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f' [B, I], column sums c [B, J] at (f', g)."""
        problem = self.problem
        factors = self.kernel.at(f, g)
        weights_b = (problem.weights_b * factors)[..., None]
        new_f, columns = torch.empty_like(f), torch.zeros_like(g)[:, None]
        for rows, kernel, f0 in self.kernel.sweep():
            moved = problem.tau_a * (f0 - torch.bmm(kernel, weights_b)[..., 0].log())
            new_f[:, rows] = moved
            gain = (moved - f0).exp_() * problem.weights_a[:, rows]
            columns.baddbmm_(gain[:, None], kernel)
        return new_f, columns[:, 0] * factors

    def gradient(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """[B, I, D] sum_j P_ij d C(a_i, b_j) / d a_i, in the problem's units."""
        problem = self.problem
        gradient = torch.empty_like(problem.a)
        targets = torch.cat([problem.b, torch.ones_like(problem.b[..., :1])], -1)
        targets *= (problem.weights_b * self.kernel.at(f, g))[..., None]
        for rows, kernel, f0 in self.kernel.sweep():
            points = problem.a[:, rows]
            row_factors = ((f[:, rows] - f0).exp() * problem.weights_a[:, rows])[..., None]
            if problem.cost == "sqeuclidean":
                moments = torch.bmm(kernel, targets)
                gradient[:, rows] = 2 * row_factors * (moments[..., -1:] * points - moments[..., :-1])
            else:
                for axis in range(points.shape[-1]):
                    # One temporary: a second of its size would be what a solve takes most of.
                    signs = (points[..., axis, None] - problem.b[:, None, :, axis]).sign_()
                    gradient[:, rows, axis] = (signs.mul_(kernel) @ targets[..., -1:] * row_factors)[..., 0]
                    del signs
        return gradient

    def select(self, index: torch.Tensor, problem: Problem) -> None:
        """Keep only the problems at `index`, which `problem` holds."""
        self.problem = problem
        self.kernel.select(index, problem)


def marginal_error(problem: Problem, g: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """[B] L1 distance of the second marginal from its condition; the first marginal's holds exactly."""
    target = 1.0
    if problem.relaxed:
        target = torch.where(problem.rho_b.isinf(), torch.ones_like(g), (-g / problem.rho_b).exp())
    return (problem.weights_b * (columns - target).abs()).sum(-1)


def translate(problem: Problem, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Optimal shift of g for relaxed marginals: a large rho stalls without it (Sejourne et al., 2022)."""
    if not problem.relaxed:
        return g
    rho_a, rho_b = problem.rho_a, problem.rho_b
    log_mass_a = torch.where(rho_a.isinf(), 0.0, _log_mean(problem.weights_a, -f / rho_a))
    log_mass_b = torch.where(rho_b.isinf(), 0.0, _log_mean(problem.weights_b, -g / rho_b))
    harmonic = 1 / (1 / rho_a + 1 / rho_b)
    shift = torch.where(harmonic.isinf(), 0.0, harmonic * (log_mass_a - log_mass_b))
    return g - shift


def _log_mean(weights: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    return (exponent + weights.log()).logsumexp(-1, keepdim=True)


def iterate(problem: Problem, step, g: torch.Tensor, tol: float, max_iter: int, memory: int):
    """Run accelerated Sinkhorn from g until every problem's marginal error is at most `tol`.

    Args:
        problem: the problems to solve.
        step: their `SinkhornStep`, or another backend's; at the end, of the last open ones.
        g: [B, J] starting potentials.
        tol, max_iter: as in `entropic_ot`; memory: its `anderson`.

    Returns:
        f [B, I], g [B, J], columns [B, J] (plan's column sums over the weights), error [B], num_iter [B]. The
        pair satisfies the first marginal's condition exactly.
    """
    result_f, result_g = torch.zeros_like(problem.weights_a), g.clone()
    result_columns, errors = torch.ones_like(g), torch.full_like(g[:, 0], float("inf"))
    num_iter = torch.zeros(g.shape[0], dtype=torch.int64, device=g.device)
    active = torch.arange(g.shape[0], device=g.device)
    f = torch.zeros_like(result_f)
    accelerate = Anderson(g, problem.weights_b, memory)
    for _ in range(max_iter):
        f, columns = step(f, g)
        error = marginal_error(problem, g, columns)
        # The last pass's plan is not always the best one: keep the best seen of each problem.
        improved = error < errors[active]
        if improved.all() and len(active) == len(errors):
            result_f, result_g, result_columns, errors = (x.clone() for x in (f, g, columns, error))
        else:
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
            step.select(keep, problem)
    return result_f, result_g, result_columns, errors, num_iter


def solve_pair(problem: Problem, step, g: torch.Tensor, tol: float, max_iter: int, memory: int):
    """`iterate`, never to a worse end than without acceleration; arguments and result are its own.

    At an eps far below the distance of neighbors acceleration can end in potentials beyond all costs, whose
    plan float32 cannot hold. A problem that it did not solve gets as many plain iterations from the same
    start, and keeps the better end of both.
    """
    ends = iterate(problem, step, g, tol, max_iter, memory)
    # NaN is open too.
    unsolved = (~(ends[3] <= max(tol, NEARLY_SOLVED))).nonzero()[:, 0]
    if not memory or not len(unsolved):
        return ends
    rest = problem.select(unsolved)
    step.restart(rest)
    plain = iterate(rest, step, g[unsolved], tol, max_iter, 0)
    strayed = _spread(ends[1][unsolved]) > 2 * _largest_cost(rest)
    better = strayed | ~(ends[3][unsolved] <= plain[3])
    for end, other in zip(ends[:4], plain[:4], strict=True):
        end[unsolved[better]] = other[better]
    ends[4][unsolved] += plain[4]
    return ends


def _spread(potential: torch.Tensor) -> torch.Tensor:
    """[B] largest less smallest value; infinite where one is not finite."""
    spread = potential.amax(-1) - potential.amin(-1)
    return torch.where(spread.isfinite(), spread, torch.full_like(spread, float("inf")))


def _largest_cost(problem: Problem) -> torch.Tensor:
    """[B] bound of the cost in units of eps, which is one of a Sinkhorn potential's spread too."""
    if problem.cost == "sqeuclidean":
        reach = problem.a.norm(dim=-1).amax(-1) + problem.b.norm(dim=-1).amax(-1)
        return reach.square() / problem.eps[:, 0]
    return (problem.a.abs().sum(-1).amax(-1) + problem.b.abs().sum(-1).amax(-1)) / problem.eps[:, 0]


def iterate_self(problem: Problem, step, tol: float, max_iter: int):
    """Potential of a cloud's transport onto itself, by the averaged update f <- (f + T f) / 2.

    Returns:
        f [B, I]; mass [B] and marginal error [B] of its plan, whose marginals are the same by symmetry.
    """
    f = gaussian_potential(problem)
    for iteration in range(max_iter):
        mapped, _ = step(f, f)
        row_mass = (f - mapped / problem.tau_a).exp()
        error = marginal_error(problem, f, row_mass)
        if (error <= tol).all() or iteration == max_iter - 1:
            break
        f = (f + mapped) / 2
    return f, (problem.weights_a * row_mass).sum(-1), error


def dual_value(problem: Problem, f: torch.Tensor, g: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """[B] regularized dual objective in units of the mean cost."""
    total = -(mass - 1)
    for weights, potential, rho in (
        (problem.weights_a, f, problem.rho_a),
        (problem.weights_b, g, problem.rho_b),
    ):
        relaxed = -rho * torch.expm1(-potential / rho)
        total = total + (weights * torch.where(rho.isinf(), potential, relaxed)).sum(-1)
    return total * problem.eps[:, 0]
