"""CUDA backend: passes over the cost by the streaming Triton kernels of the package flash-sinkhorn.

FlashSinkhorn (Ye et al., ICML 2026; PyPI flash-sinkhorn, MIT) keeps nothing of the I x J kernel in memory.
Only two of its streamed primitives are used, a row-wise log-sum-exp and the plan applied to points: start,
acceleration, relaxed marginals, debiasing and stopping rule are the same code as for the torch backend.

Shape letters: B problems solved together, I J points, D coordinates. Potentials are in units of eps.
"""

import importlib.util

import torch

from ..text import described
from .problem import Problem

PACKAGE = "flash_sinkhorn"


def why_not_flash(device: torch.device, cost: str) -> str | None:
    """The reason why the backend cannot be used, as the end of a sentence; None if it can."""
    if device.type != "cuda":
        return f"needs CUDA tensors, and the clouds are on {device}: move them to a GPU"
    if cost != "sqeuclidean":
        return f"has the squared Euclidean cost only, and cost is {described(cost)}"
    if importlib.util.find_spec(PACKAGE) is None:
        return "needs the package flash-sinkhorn: pip install flash-sinkhorn"
    return None


class FlashStep:
    """`SinkhornStep` of the torch backend with the two half-steps as streamed kernels.

    Points are divided by sqrt(eps), so that costs and potentials are in units of eps and the kernels' own eps
    is 1. Their products are full float32, since tf32 would err by more than eps. Every kernel takes one
    problem, so that an iteration launches 2 B of them.
    """

    def __init__(self, problem: Problem):
        from flash_sinkhorn.kernels import apply_plan_mat_flashstyle
        from flash_sinkhorn.kernels.sinkhorn_flashstyle_sqeuclid import flashsinkhorn_lse

        self._log_sum_exp, self._apply_plan = flashsinkhorn_lse, apply_plan_mat_flashstyle
        self.restart(problem)

    def restart(self, problem: Problem) -> None:
        """Change to another problem."""
        self.select(None, problem)

    def select(self, index: torch.Tensor | None, problem: Problem) -> None:
        """Keep only the problems that `problem` holds."""
        self.problem = problem
        unit = problem.eps.sqrt()[..., None]
        self.a, self.b = (problem.a / unit).contiguous(), (problem.b / unit).contiguous()
        self.norm_a, self.norm_b = self.a.square().sum(-1), self.b.square().sum(-1)
        self.log_a, self.log_b = problem.weights_a.log(), problem.weights_b.log()

    def __call__(self, f: torch.Tensor, g: torch.Tensor):
        """f' [B, I], column sums c [B, J] at (f', g); the kernels subtract maxima always."""
        new_f = self.problem.tau_a * -self._log_rows(g)
        bias = new_f - self.norm_a + self.log_a
        log_columns = g - self.norm_b + self._reduce(self.b, self.a, bias)
        return new_f, log_columns.exp()

    def gradient(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """[B, I, D] sum_j P_ij d C(a_i, b_j) / d a_i = 2 ((P 1)_i a_i - (P b)_i), in the problem's units."""
        row_mass = (f + self._log_rows(g)).exp() * self.problem.weights_a
        shifted_f, shifted_g = f - self.norm_a, g - self.norm_b
        pulled = [
            self._apply_plan(
                *(x[k] for x in (self.a, self.b, shifted_f, shifted_g, self.log_a, self.log_b)),
                self.problem.b[k],
                eps=1.0,
                axis=1,
                allow_tf32=False,
            )
            for k in range(len(f))
        ]
        return 2 * (row_mass[..., None] * self.problem.a - torch.stack(pulled))

    def _log_rows(self, g: torch.Tensor) -> torch.Tensor:
        """[B, I] log sum_j b_j exp(g_j - C_ij)."""
        return self._reduce(self.a, self.b, g - self.norm_b + self.log_b) - self.norm_a

    def _reduce(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[B, I] log sum_j exp(2 x_i . y_j + bias_j); the kernel returns -eps times it."""
        problems = zip(x, y, bias, strict=True)
        return -torch.stack([self._log_sum_exp(*one, 1.0, allow_tf32=False) for one in problems])
