"""Rotary positions over (frame, row, column).

B batch, L tokens, T latent frames, H W rows and columns of tokens, N heads, P channel pairs of a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import rearrange, repeat
from torch import Tensor

THETA = 10000.0
Positions = tuple[Tensor, Tensor, Tensor]


def axes_dims(head_dim: int) -> tuple[int, int, int]:
    """Return how many channels of a head turn with the frame, the row and the column.

    Row and column take a third each, rounded down to pairs; the frame takes what is left (Wan 2.1).
    """
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


class RotaryTable:
    """(cos, sin) of every angle: `turns` [1, L, 1, P, 2] float32.

    Not a tensor, so that a mixed-precision wrapper which casts a block's inputs leaves positions exact.
    """

    __slots__ = ("turns",)

    def __init__(self, turns: Tensor) -> None:
        self.turns = turns


def rotary_table(positions: Positions, head_dim: int) -> RotaryTable:
    """Tabulate the angles of a grid of tokens.

    Args:
        positions: (frames [T], rows [H], columns [W]), any real numbers; 0, 1, 2, .. in a plain video.
        head_dim: channels of a head.

    Returns:
        The table of T * H * W tokens, on the positions' device.
    """
    t, h, w = (len(axis) for axis in positions)
    parts = []
    for axis, position, dim in zip("thw", positions, axes_dims(head_dim), strict=True):
        # float64 keeps late frames exact; MPS has none, so there the (tiny) table is made on the CPU.
        device = position.device if position.device.type != "mps" else torch.device("cpu")
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
        angle = position.to(device, torch.float64)[:, None] * THETA**-exponent
        turn = torch.stack((angle.cos(), angle.sin()), dim=-1).to(position.device, torch.float32)
        parts.append(repeat(turn, f"{axis} p two -> t h w p two", t=t, h=h, w=w))
    return RotaryTable(rearrange(torch.cat(parts, dim=3), "t h w p two -> 1 (t h w) 1 p two"))


def grid_table(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> RotaryTable:
    """Tabulate the angles of a video whose positions count from 0; tables of recent grids are kept.

    Args:
        grid: tokens along (T, h, w).
        head_dim: channels of a head.
        device: where the table is needed.

    Returns:
        The table.
    """
    if torch.compiler.is_compiling():  # a traced graph must not hold, or fill, a cache of this process
        return _grid_table(grid, head_dim, device)
    return _kept_grid_table(grid, head_dim, device)


def _grid_table(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> RotaryTable:
    return rotary_table(tuple(torch.arange(size, device=device) for size in grid), head_dim)


@lru_cache(maxsize=8)
def _kept_grid_table(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> RotaryTable:
    # A tensor born in inference mode could not be used for training later.
    with torch.inference_mode(False), torch.no_grad():
        return _grid_table(grid, head_dim, device)


def apply_rotary(x: Tensor, table: RotaryTable) -> Tensor:
    """Turn each pair of neighboring channels by its token's angles.

    Args:
        x: [B, L, N, 2 * P].
        table: of L tokens and P pairs.

    Returns:
        Like x, computed in float32.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    # Eager complex multiplication is one pass (20 times faster than real arithmetic on a CPU);
    # compilers fuse the real form and cannot the complex one.
    if x.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling():
        pairs, turns = torch.view_as_complex(pairs), torch.view_as_complex(table.turns)
        turned = (
            pairs * turns if x.dtype == torch.float32 else pairs.mul_(turns)
        )  # x itself is never written to
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    (even, odd), (cos, sin) = pairs.unbind(-1), table.turns.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
