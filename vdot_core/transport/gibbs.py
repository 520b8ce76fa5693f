"""The kernel exp(f + g - C) by chunks of rows, kept in memory or streamed through one buffer.

Shape letters: B problems solved together, I J points, D coordinates, R rows of a chunk. Potentials are in
units of eps.
"""

import math
from collections.abc import Iterator

import torch

from .problem import Problem
from .tiling import Tiling

LOG2_E = 1 / math.log(2)
# An entry below 1e-27 of its row's largest never matters, and by a weight and a column's factor it is still
# no denormal number, on which a CPU is many times slower.
MIN_EXPONENT = -64.0
# How far potentials may move from where a kernel was computed: entries that were cut off, times exp(20)
# twice, are still below float32's resolution.
MAX_DRIFT = 20.0


class Exponents:
    """Streams log2(e) (f_i + g_j - C_ij) in row chunks, by one matrix product for the squared cost.

    Base 2, because torch's exp2 is 4 times faster than its exp on a CPU. The squared cost is folded into
    D + 2 coordinates, so that a chunk costs one GEMM and no extra pass:
    ``f + g - |a|^2 - |b|^2 + 2 a.b  =  [2 a, f - |a|^2, 1] . [b, 1, g - |b|^2]``.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        inverse_eps = LOG2_E / problem.eps
        if problem.cost == "sqeuclidean":
            self.norm_a = problem.a.square().sum(-1) * inverse_eps
            self.norm_b = problem.b.square().sum(-1) * inverse_eps
            ones = torch.ones_like(self.norm_a)[..., None]
            self.rows = torch.cat([problem.a * (2 * inverse_eps[..., None]), ones, ones], -1)
            ones = torch.ones_like(self.norm_b)[..., None]
            self.columns = torch.cat([problem.b, ones, ones], -1).transpose(1, 2).contiguous()
        else:
            self.inverse_eps = inverse_eps[..., None]

    def bind(self, f: torch.Tensor, g: torch.Tensor) -> "Exponents":
        """Use the potentials f [B, I] and g [B, J] (units of eps) in the chunks that follow."""
        f, g = f * LOG2_E, g * LOG2_E
        if self.problem.cost == "sqeuclidean":
            self.rows[..., -2] = f - self.norm_a
            self.columns[:, -1] = g - self.norm_b
        else:
            self.f, self.g = f, g
        return self

    def chunk(self, rows: slice, out: torch.Tensor) -> torch.Tensor:
        """[B, R, J] exponents of the given rows, written to `out`."""
        if self.problem.cost == "sqeuclidean":
            return torch.bmm(self.rows[:, rows], self.columns, out=out)
        distance = torch.cdist(self.problem.a[:, rows], self.problem.b, p=1)
        torch.mul(distance, -self.inverse_eps, out=out)
        return out.add_(self.f[:, rows, None]).add_(self.g[:, None, :])


class GibbsKernel:
    """Row chunks of E = exp(f + g - C), as E = K exp(f - f0) exp(g - g0) with anchors f0 and g0.

    A kernel that fits into memory is stored: while g stays near g0, a pass over it costs two matrix-vector
    products and no exponential. Any other is computed by every pass, chunk by chunk in one buffer. Each row's
    maximum is taken out, so that no sum over- or underflows: without that, a streamed solve took 0.8 to 1.0
    of the time. The chunks are stored in `memory`, flat and float32, from its start.
    """

    def __init__(self, problem: Problem, memory: torch.Tensor):
        self.exponents = Exponents(problem)
        self.tiling = Tiling.of(*problem.size)
        num_problems, num_columns = problem.weights_b.shape
        parts = memory[: sum(self.tiling.buffers)].split(self.tiling.buffers)
        self.buffers = [part.view(num_problems, -1, num_columns) for part in parts]
        self.fresh, self.g0 = True, None

    def at(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Prepare a sweep at f [B, I], g [B, J].

        Returns:
            exp(g - g0) [B, J], the columns' factors.
        """
        near = self.g0 is not None and (g - self.g0).abs().max() <= MAX_DRIFT
        self.fresh = not (self.tiling.buffered and near)
        if self.fresh:
            self.f0, self.g0 = f.clone(), g
            self.exponents.bind(f, g)
        return (g - self.g0).exp()

    def sweep(self) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Chunks (rows, K [B, R, J], f0 [B, R]) of the kernel that `at` prepared."""
        for index, rows in enumerate(self.tiling.chunks):
            out = self.buffers[index if self.tiling.buffered else 0][:, : rows.stop - rows.start]
            if self.fresh:
                exponent = self.exponents.chunk(rows, out)
                shift = exponent.amax(-1)
                exponent -= shift[..., None]
                self.f0[:, rows] -= shift / LOG2_E
                exponent.clamp_(min=MIN_EXPONENT * LOG2_E).exp2_()
            yield rows, out, self.f0[:, rows]

    def select(self, index: torch.Tensor, problem: Problem) -> None:
        """Keep only the problems at `index`, which `problem` holds."""
        self.exponents, self.f0, self.g0 = Exponents(problem), self.f0[index], self.g0[index]
        for position, buffer in enumerate(self.buffers):
            # In place: a copy would double the memory.
            for place, source in enumerate(index.tolist()):
                if place != source:
                    buffer[place].copy_(buffer[source])
            self.buffers[position] = buffer[: len(index)]
