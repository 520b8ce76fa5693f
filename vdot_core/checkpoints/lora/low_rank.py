"""Low-rank factors of a matrix by truncated SVD: exact where it is small, randomized where it is large.

Shape letters: M rows, N columns, R rank, K columns of a sketch.
"""

from __future__ import annotations

import torch

EXACT_SIDE = 512
"""Matrices whose smaller side is at most this are decomposed exactly."""
# A sketch of more columns than the rank, and a few products with the matrix, separate close singular values.
_EXTRA_COLUMNS = 0.25
_MIN_EXTRA = 16
_MAX_ITERATIONS = 8
_MIN_GAIN = 1e-3


def truncated_svd(
    matrix: torch.Tensor, rank: int, *, energy: float | None = None, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor a matrix as `up @ down`, the closest product of its rank in the Frobenius norm.

    Args:
        matrix: [M, N] float32, on any device.
        rank: largest R; at most the matrix's smaller side is used.
        energy: with it, the smallest R that keeps this part of the squared Frobenius norm, 0..1.
        seed: of the random sketch.
    Returns:
        (up [M, R], down [R, N]), each with the square roots of the singular values.
    """
    smaller = min(matrix.shape)
    columns = min(rank + max(_MIN_EXTRA, int(rank * _EXTRA_COLUMNS)), smaller)
    if smaller <= EXACT_SIDE or columns == smaller:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        u, s, vh = _randomized_svd(matrix, columns, min(rank, smaller), seed)
    rank = min(rank, smaller)
    if energy is not None:
        energies = s.double().square().cumsum(0)
        rank = min(rank, 1 + int((energies < energy * squared_norm(matrix)).sum()))
    roots = s[:rank].sqrt()
    return u[:, :rank] * roots, roots[:, None] * vh[:rank]


def _randomized_svd(
    matrix: torch.Tensor, columns: int, rank: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Leading singular triplets by subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4).

    It ends when an iteration adds less than 0.1 % to the energy of the first `rank` singular values.
    """
    generator = torch.Generator().manual_seed(seed)
    sketch = torch.randn(matrix.shape[1], columns, generator=generator).to(matrix)
    basis = torch.linalg.qr(matrix @ sketch).Q  # [M, K]
    captured = 0.0
    for _ in range(_MAX_ITERATIONS):
        right = torch.linalg.qr(matrix.T @ basis).Q  # [N, K]
        image = matrix @ right
        values = torch.linalg.eigvalsh((image.T @ image).double())[-rank:]
        gain, captured = float(values.sum()) - captured, float(values.sum())
        if gain <= _MIN_GAIN * captured:
            break
        basis = torch.linalg.qr(image).Q
    u, s, wh = torch.linalg.svd(image, full_matrices=False)
    return u, s, wh @ right.T


def squared_norm(matrix: torch.Tensor) -> float:
    """Squared Frobenius norm of a tensor, summed in float64 a few rows at a time."""
    rows = matrix.reshape(len(matrix), -1) if matrix.ndim > 1 else matrix[None]
    return sum(float(part.double().square().sum()) for part in rows.split(256))
