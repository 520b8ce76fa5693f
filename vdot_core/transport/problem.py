"""A batch of transport problems in the solver's own units: centred, scaled, with a streamed cost.

Shape letters: B problems solved together, I J points, D coordinates, R rows of a chunk.
"""

import math
from dataclasses import dataclass

import torch

# torch's CPU exp is 37-55 times slower on arguments below about -87; exp(-80) is 2e-35 and never matters.
MIN_EXPONENT = -80.0
CHUNK_ELEMENTS = {"cpu": 128 * 1600, "cuda": 1 << 26}
RELATIVE_EPS_FLOOR = 1e-5


@dataclass(frozen=True)
class Problem:
    """B problems whose mean cost is 1; every potential and exponent below is in units of eps.

    Attributes:
        a: [B, I, D] float32 first clouds; b: [B, J, D] second clouds.
        weights_a: [B, I], weights_b: [B, J], each summing to 1.
        eps: [B, 1] regularisation as a share of the mean cost.
        scale: [B] mean cost in the caller's units; length: [B] the caller's length of one unit.
        tau_a, tau_b: damping rho / (rho + eps) as [B, 1]; 1 for a hard marginal.
        rho_a, rho_b: [B, 1] marginal relaxation in units of eps (inf for a hard marginal).
        cost: 'sqeuclidean' or 'l1'.
    """

    a: torch.Tensor
    b: torch.Tensor
    weights_a: torch.Tensor
    weights_b: torch.Tensor
    eps: torch.Tensor
    scale: torch.Tensor
    length: torch.Tensor
    rho_a: torch.Tensor
    rho_b: torch.Tensor
    cost: str

    @property
    def tau_a(self) -> torch.Tensor:
        return damping(self.rho_a)

    @property
    def tau_b(self) -> torch.Tensor:
        return damping(self.rho_b)

    def row_chunks(self):
        """Slices of rows whose [B, R, J] exponents fit the cache (CPU) or a bounded share of memory (GPU)."""
        num_rows, num_columns = self.a.shape[1], self.b.shape[1] * self.a.shape[0]
        if self.cost == "l1":
            num_columns *= 2
        rows = max(1, CHUNK_ELEMENTS[self.a.device.type] // num_columns)
        rows = math.ceil(num_rows / math.ceil(num_rows / rows))
        return [slice(start, min(start + rows, num_rows)) for start in range(0, num_rows, rows)]

    def select(self, index: torch.Tensor) -> "Problem":
        """The sub-batch at `index`."""
        picked = {k: v[index] for k, v in self.__dict__.items() if isinstance(v, torch.Tensor)}
        return Problem(cost=self.cost, **picked)

    def swapped(self) -> "Problem":
        """The same problem with its clouds exchanged."""
        pairs = {"a": "b", "weights_a": "weights_b", "rho_a": "rho_b"}
        pairs |= {second: first for first, second in pairs.items()}
        return Problem(**{name: getattr(self, pairs.get(name, name)) for name in self.__dict__})

    def self_problem(self) -> "Problem":
        """Transport of the first cloud onto itself, for debiasing."""
        first = {"b": self.a, "weights_b": self.weights_a, "rho_b": self.rho_a}
        return Problem(**{**self.__dict__, **first})


def damping(rho_over_eps: torch.Tensor) -> torch.Tensor:
    """tau = rho / (rho + eps): the one factor by which a KL-relaxed marginal enters Sinkhorn's update."""
    return torch.where(rho_over_eps.isinf(), torch.ones_like(rho_over_eps), rho_over_eps / (rho_over_eps + 1))


class Exponents:
    """Streams (f_i + g_j - C_ij) / eps in row chunks, by one matrix product for the squared cost.

    The squared cost is folded into D + 2 coordinates, so that a chunk costs one GEMM and no extra pass:
    ``f + g - |a|^2 - |b|^2 + 2 a.b  =  [2 a, f - |a|^2, 1] . [b, 1, g - |b|^2]``.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        inverse_eps = 1 / problem.eps
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
        if self.problem.cost == "sqeuclidean":
            self.rows[..., -2] = f - self.norm_a
            self.columns[:, -1] = g - self.norm_b
        else:
            self.f, self.g = f, g
        return self

    def chunk(self, rows: slice) -> torch.Tensor:
        """[B, R, J] exponents of the given rows."""
        if self.problem.cost == "sqeuclidean":
            exponent = torch.bmm(self.rows[:, rows], self.columns)
        else:
            exponent = torch.cdist(self.problem.a[:, rows], self.problem.b, p=1).mul_(-self.inverse_eps)
            exponent += self.f[:, rows, None] + self.g[:, None, :]
        return exponent


def mean_cost(a, b, weights_a, weights_b, cost: str) -> torch.Tensor:
    """[B] mean of the cost under the product of the weights, in float64 (exact, without the I x J matrix)."""
    a, b, weights_a, weights_b = (x.double() for x in (a, b, weights_a, weights_b))
    if cost == "sqeuclidean":
        mean_a, mean_b = (torch.einsum("bi,bid->bd", w, x) for w, x in ((weights_a, a), (weights_b, b)))
        spread_a = torch.einsum("bi,bid->b", weights_a, (a - mean_a[:, None]).square())
        spread_b = torch.einsum("bi,bid->b", weights_b, (b - mean_b[:, None]).square())
        return spread_a + spread_b + (mean_a - mean_b).square().sum(-1)
    # E|x - y| = integral of F(t) (1 - G(t)) + G(t) (1 - F(t)) over t, by coordinate, on the sorted points.
    points, order = torch.cat([a, b], 1).sort(dim=1)
    mass_a = torch.cat([weights_a, torch.zeros_like(weights_b)], 1)[..., None].expand_as(points)
    mass_b = torch.cat([torch.zeros_like(weights_a), weights_b], 1)[..., None].expand_as(points)
    below_a, below_b = (m.gather(1, order).cumsum(1)[:, :-1] for m in (mass_a, mass_b))
    gaps = points.diff(dim=1)
    return (gaps * (below_a * (1 - below_b) + below_b * (1 - below_a))).sum((1, 2))


def make_problem(
    a, b, weights_a, weights_b, eps, eps_mode, rho_a, rho_b, cost: str
) -> tuple[Problem, torch.Tensor]:
    """Centre on mean(b), scale to mean cost 1 in float64, and floor eps.

    Returns:
        The problem, and [B] bool: True where eps was below the floor of 1e-5 of the mean cost.
    """
    a, b = a.double(), b.double()
    centre = torch.einsum("bj,bjd->bd", weights_b.double(), b)[:, None]
    a, b = a - centre, b - centre
    scale = mean_cost(a, b, weights_a, weights_b, cost)
    extent = torch.maximum(a.abs().amax((1, 2)), b.abs().amax((1, 2)))
    power = 2 if cost == "sqeuclidean" else 1
    # Identical constant clouds have mean cost 0: any positive unit will do, since every cost is 0 in it.
    scale = torch.where(scale > 0, scale, torch.where(extent > 0, extent**power, torch.ones_like(scale)))
    length = scale ** (1 / power)
    # rho is given in the units of eps, so their ratio holds in every unit.
    rho_a, rho_b = (torch.full_like(scale, rho / eps)[:, None] for rho in (rho_a, rho_b))
    eps = torch.full_like(scale, eps) if eps_mode == "mean_cost" else eps / scale
    floored = eps < RELATIVE_EPS_FLOOR
    eps = eps.clamp_min(RELATIVE_EPS_FLOOR)
    a, b = (x / length[:, None, None] for x in (a, b))
    fields = {"a": a, "b": b, "weights_a": weights_a, "weights_b": weights_b, "eps": eps[:, None]}
    fields |= {"rho_a": rho_a, "rho_b": rho_b}
    fields = {k: v.float().contiguous() for k, v in fields.items()}
    return Problem(scale=scale, length=length, cost=cost, **fields), floored
