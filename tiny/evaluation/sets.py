"""Scores of many clips together: Frechet distance and diversity, over the evaluation network's features.

Letters: N clips, P prompts, S seeds, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Distance between two sets seen as Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    It falls with the number of clips at equal quality: compare only sets of equal size.

    Args:
        one, other: [N, D] float features, at least two clips each.

    Returns:
        The squared distance, 0 for equal sets.

    Raises:
        ValueError: A set has fewer than two clips.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"got {len(one)} and {len(other)} clips; a Frechet distance needs at least 2 of each"
        )
    one, other = one.double(), other.double()
    first, second = one.T.cov(), other.T.cov()
    root = _root(first)
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    means = (one.mean(0) - other.mean(0)).square().sum()
    return max(float(means + first.trace() + second.trace() - 2 * cross), 0.0)


def diversity(features: Tensor) -> float:
    """Mean distance between clips of one prompt that differ in their seed alone.

    Args:
        features: [P, S, D] float, S >= 2.
    """
    if features.dim() != 3 or features.shape[1] < 2:
        raise ValueError(f"features is {list(features.shape)}; expected [prompts, seeds >= 2, D]")
    return float(torch.stack([torch.pdist(one.double()).mean() for one in features]).mean())


def spread(features: Tensor) -> float:
    """Mean distance between different clips [N, D]: the scale on which `diversity` is read."""
    return diversity(features[None])
