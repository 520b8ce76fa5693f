"""A batch of transport problems in the solver's own units: centered and scaled.

Shape letters: B problems solved together, I J points, D coordinates.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import torch

RELATIVE_EPS_FLOOR = 1e-5


@dataclass(frozen=True)
class Problem:
    """B problems whose mean cost is 1; every potential and exponent below is in units of eps.

    Attributes:
        a: [B, I, D] float32 first clouds; b: [B, J, D] second clouds.
        weights_a: [B, I], weights_b: [B, J], each summing to 1.
        eps: [B, 1] regularization as a share of the mean cost.
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

    @cached_property
    def tau_a(self) -> torch.Tensor:
        return damping(self.rho_a)

    @cached_property
    def relaxed(self) -> bool:
        """True if any marginal is relaxed."""
        return bool((self.rho_a.isfinite() | self.rho_b.isfinite()).any())

    @property
    def size(self) -> tuple[str, int, int, int, str]:
        """Key of its memory layout: kind of device, B, I, J and the cost."""
        return self.a.device.type, *self.a.shape[:2], self.b.shape[1], self.cost

    @cached_property
    def tau_b(self) -> torch.Tensor:
        return damping(self.rho_b)

    def select(self, index: torch.Tensor) -> "Problem":
        """The sub-batch at `index`."""
        values = self._values()
        return Problem(**{k: v[index] if isinstance(v, torch.Tensor) else v for k, v in values.items()})

    def swapped(self) -> "Problem":
        """The same problem with its clouds exchanged."""
        pairs = {"a": "b", "weights_a": "weights_b", "rho_a": "rho_b"}
        pairs |= {second: first for first, second in pairs.items()}
        return Problem(**{name: getattr(self, pairs.get(name, name)) for name in self._values()})

    def self_problem(self) -> "Problem":
        """Transport of the first cloud onto itself, for debiasing."""
        first = {"b": self.a, "weights_b": self.weights_a, "rho_b": self.rho_a}
        return Problem(**{**self._values(), **first})

    def _values(self) -> dict:
        """The fields without cached values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def damping(rho_over_eps: torch.Tensor) -> torch.Tensor:
    """tau = rho / (rho + eps): the one factor by which a KL-relaxed marginal enters Sinkhorn's update."""
    return torch.where(rho_over_eps.isinf(), torch.ones_like(rho_over_eps), rho_over_eps / (rho_over_eps + 1))


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
    """Center on mean(b), scale to mean cost 1 in float64, and floor eps.

    Returns:
        The problem, and [B] bool: True where eps was below the floor of 1e-5 of the mean cost.
    """
    a, b = a.double(), b.double()
    center = torch.einsum("bj,bjd->bd", weights_b.double(), b)[:, None]
    a, b = a - center, b - center
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
    values = (a / length[:, None, None], b / length[:, None, None], weights_a, weights_b, eps[:, None])
    a, b, weights_a, weights_b, eps, rho_a, rho_b = (x.float().contiguous() for x in (*values, rho_a, rho_b))
    return Problem(a, b, weights_a, weights_b, eps, scale, length, rho_a, rho_b, cost), floored
