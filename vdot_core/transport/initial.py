"""Initial potentials: the closed-form optimal transport between the two clouds' Gaussian fits."""

import torch

from .problem import Problem

# Keeps the root of a flat cloud's covariance finite.
COVARIANCE_RIDGE = 1e-6


def gaussian_potential(problem: Problem) -> torch.Tensor:
    """Second cloud's potential for the Gaussians that match both clouds' means and covariances.

    With A, B the covariances and D = mean_a - mean_b, the optimal map from b to a is linear,
    ``S = B^-1/2 (B^1/2 A B^1/2)^1/2 B^-1/2``, and with y centered ``g(y) = y^T (I - S) y - 2 y . D``, up to a
    constant (Dowson & Landau, 1982). The map without regularization is taken on purpose: the plan of finitely
    many points near a curved sheet is far sharper than that of their Gaussian fits at the same eps (Janati et
    al., NeurIPS 2020), whose potential was never the better start and cost up to 4 times the iterations.

    Returns:
        [B, J] float32 potential in units of eps; zeros for the L1 cost, which has no such closed form.
    """
    if problem.cost != "sqeuclidean":
        return torch.zeros_like(problem.weights_b)
    mean_a, cov_a, _ = _moments(problem.a, problem.weights_a)
    mean_b, cov_b, centered_b = _moments(problem.b, problem.weights_b)
    identity = torch.eye(cov_a.shape[-1], dtype=cov_a.dtype, device=cov_a.device)
    root_b, inverse_root_b = _roots(cov_b)
    inner, _ = _roots(root_b @ cov_a @ root_b)
    quadratic = identity - inverse_root_b @ inner @ inverse_root_b
    potential = torch.einsum("bjd,bde,bje->bj", centered_b, quadratic, centered_b)
    potential = potential - 2 * torch.einsum("bjd,bd->bj", centered_b, mean_a - mean_b)
    return (potential / problem.eps.double()).float()


def _moments(points: torch.Tensor, weights: torch.Tensor):
    """Weighted mean [B, D], ridged covariance [B, D, D] and centered points, in float64."""
    points, weights = points.double(), weights.double()
    mean = torch.einsum("bi,bid->bd", weights, points)
    centered = points - mean[:, None]
    covariance = torch.einsum("bi,bid,bie->bde", weights, centered, centered)
    num_dims = covariance.shape[-1]
    trace = covariance.diagonal(dim1=1, dim2=2).sum(-1)
    # A constant cloud has no spread: its ridge is a share of the unit mean cost instead.
    ridge = COVARIANCE_RIDGE * torch.where(trace > 0, trace, torch.ones_like(trace))
    identity = torch.eye(num_dims, dtype=covariance.dtype, device=covariance.device)
    return mean, covariance + ridge[:, None, None] * identity, centered


def _roots(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric square root and its inverse of positive definite matrices."""
    values, vectors = torch.linalg.eigh((matrix + matrix.transpose(1, 2)) / 2)
    roots = values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()
    return (vectors * roots[:, None]) @ vectors.transpose(1, 2), (
        vectors / roots[:, None]
    ) @ vectors.transpose(1, 2)
