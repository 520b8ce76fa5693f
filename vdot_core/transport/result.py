"""The solution of a transport problem."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class OTResult:
    """Solution of F independent entropic transport problems between clouds of I and J points in R^D.

    The plan is ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)`` with weights a, b that sum to 1.

    Attributes:
        f: [F, I] float32, potential of the first cloud, in units of the cost.
        g: [F, J] float32, potential of the second cloud.
        grad_a: [F, I, D] float32, gradient of ``value`` by the first cloud's points at fixed potentials
            (envelope theorem). For the squared cost that is ``2 (P 1)_i a_i - 2 (P b)_i``, with the
            actual row mass of the plan.
            With ``debias`` the gradient of OT(a, a) by its first argument is already subtracted.
        value: [F] float32, regularized (dual) objective; with ``debias`` the Sinkhorn divergence.
        num_iter: [F] int64, passes over the cost matrix, accelerated and plain ones, those for ``debias`` not
            counted.
        marginal_error: [F] float32, L1 distance of the plan's second marginal from its condition (the first
            marginal's holds exactly); with ``debias`` the largest of the three plans that are solved for.
        converged: [F] bool, ``marginal_error <= tol``.
        valid: [F] bool, False where the input held NaN or infinity, or no finite gradient was found; its
            potentials, value and gradient are zero.
        eps: [F] float32, the absolute regularization that was used.
        backend: 'torch' or 'flash', what solved it.
    """

    f: torch.Tensor
    g: torch.Tensor
    grad_a: torch.Tensor
    value: torch.Tensor
    num_iter: torch.Tensor
    marginal_error: torch.Tensor
    converged: torch.Tensor
    valid: torch.Tensor
    eps: torch.Tensor
    backend: str


def join(results: Sequence[OTResult]) -> OTResult:
    """The results of groups of frames, by one backend, as one."""
    names = [field.name for field in fields(OTResult) if field.name != "backend"]
    joined = {name: torch.cat([getattr(result, name) for result in results]) for name in names}
    return OTResult(**joined, backend=results[0].backend)
