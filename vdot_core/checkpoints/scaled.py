"""Values of weights that are stored in fp8 or int8 with scale factors."""

from __future__ import annotations

import torch

_CHUNK_VALUES = 2**20  # expanded at a time, so that the temporary values stay small


def expand_scaled(
    weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype = torch.float32, group_size: int = 0
) -> torch.Tensor:
    """Give the values of a scaled weight, computed in float32 some rows at a time.

    Args:
        weight: [out, ...] fp8 or int8.
        scale: 1 or `out` factors, of any shape.
        dtype: of the result.
        group_size: columns of a matrix that were rotated together by `rotation`; 0: none were.
    """
    turn = rotation(group_size, weight.device) if group_size else None
    factors = scale.float().reshape(-1, *[1] * (weight.ndim - 1))
    values = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    step = max(1, _CHUNK_VALUES // max(1, weight[:1].numel()))
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        part = weight[rows].float() * (factors if factors.shape[0] == 1 else factors[rows])
        values[rows] = part if turn is None else (part.view(-1, group_size) @ turn).view_as(part)
    return values


def rotation(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The regular Hadamard matrix [size, size], orthogonal, of which every row has the same sum.

    Args:
        size: a power of 4.
        device: of the matrix.
    """
    rows = [[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]
    block = torch.tensor(rows, device=device)
    matrix = block
    while matrix.shape[0] < size:
        matrix = torch.kron(matrix, block)
    return matrix / size**0.5
