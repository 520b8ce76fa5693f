"""Signed distance fields of the drawn shapes, tabulated once and sampled with an affine map.

A shape lives in its own coordinates: origin at its center, radius about 1, y down. Negative inside.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
TABLE_EXTENT = 1.5
TABLE_SIZE = 128


def polygon_sdf(points: Tensor, vertices: Tensor) -> Tensor:
    """Signed distance to a simple polygon.

    Args:
        points: [..., 2] float.
        vertices: [N, 2] float, in order around the polygon.

    Returns:
        [...] float, negative inside.
    """
    starts, ends = vertices, vertices.roll(-1, dims=0)
    edges = ends - starts
    offsets = points[..., None, :] - starts
    along = (offsets * edges).sum(-1) / edges.square().sum(-1)
    distance = (offsets - along.clamp(0, 1)[..., None] * edges).norm(dim=-1).amin(-1)
    x, y = points[..., None, 0], points[..., None, 1]
    straddles = (starts[:, 1] > y) != (ends[:, 1] > y)
    height = torch.where(edges[:, 1] == 0, torch.ones_like(edges[:, 1]), edges[:, 1])
    crossing = starts[:, 0] + (y - starts[:, 1]) / height * edges[:, 0]
    inside = (straddles & (x < crossing)).sum(-1) % 2 == 1
    return torch.where(inside, -distance, distance)


def _vertices(shape: str) -> Tensor:
    """[N, 2] outline of a polygonal shape."""
    if shape == "square":
        return torch.tensor([[-0.78, -0.78], [0.78, -0.78], [0.78, 0.78], [-0.78, 0.78]])
    if shape == "diamond":
        return torch.tensor([[0.0, -1.0], [0.66, 0.0], [0.0, 1.0], [-0.66, 0.0]])
    if shape == "triangle":
        return torch.tensor([[0.0, -1.0], [0.95, 0.72], [-0.95, 0.72]])
    if shape == "cross":
        a, b = 0.33, 0.98
        corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a)]
        return torch.tensor([*corners, (-b, -a), (-a, -a)])
    if shape == "star":
        angles = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
        radii = [1.05 if k % 2 == 0 else 0.45 for k in range(10)]
        return torch.tensor([[r * math.cos(a), r * math.sin(a)] for a, r in zip(angles, radii, strict=True)])
    if shape == "heart":
        t = torch.arange(48) * (2 * math.pi / 48)
        x = 16 * t.sin() ** 3
        y = 13 * t.cos() - 5 * (2 * t).cos() - 2 * (3 * t).cos() - (4 * t).cos()
        return torch.stack([x / 16.5, -(y + 2.5) / 15.5], dim=-1)
    raise ValueError(f"no outline for the shape {shape!r}; the shapes are {SHAPES}")


def exact_sdf(shape: str, points: Tensor) -> Tensor:
    """Signed distance of one shape at given points, in the shape's own coordinates.

    Args:
        shape: One of `SHAPES`.
        points: [..., 2] float.

    Returns:
        [...] float, negative inside.
    """
    if shape == "circle":
        return points.norm(dim=-1) - 0.92
    if shape == "ring":
        return (points.norm(dim=-1) - 0.7).abs() - 0.25
    return polygon_sdf(points, _vertices(shape))


@functools.lru_cache(maxsize=1)
def sdf_table() -> Tensor:
    """[num_shapes, 1, TABLE_SIZE, TABLE_SIZE] distances over [-TABLE_EXTENT, TABLE_EXTENT]^2."""
    axis = torch.linspace(-TABLE_EXTENT, TABLE_EXTENT, TABLE_SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y], dim=-1)
    return torch.stack([exact_sdf(shape, points) for shape in SHAPES])[:, None].float()


def draw_sdf(
    shape: str,
    centers: Tensor,
    angles: Tensor,
    radius: float,
    height: int,
    width: int,
    corners: Tensor | None = None,
) -> Tensor:
    """Distance in pixels from pixel centers to a moving, turning shape.

    Args:
        shape: One of `SHAPES`.
        centers: [F, 2] float, (x, y) in pixels.
        angles: [F] float, radians, clockwise on screen.
        radius: Pixels that one unit of the shape's coordinates takes.
        height, width: Size in pixels of the frames, or of the windows.
        corners: [F, 2] integers as float, the (x, y) of each frame's first pixel, where only a window of it
            is wanted; None = (0, 0).

    Returns:
        [F, height, width] float; within a pixel of the outline it is exact to the table's resolution.
    """
    cos, sin = (angles.cos() / radius)[:, None], (angles.sin() / radius)[:, None]
    x, y = torch.arange(width)[None] + 0.5, torch.arange(height)[None] + 0.5
    if corners is not None:
        x, y = x + corners[:, :1], y + corners[:, 1:]
    dx, dy = x - centers[:, :1], y - centers[:, 1:]
    grid = torch.empty(len(centers), height, width, 2)
    torch.add((cos * dx)[:, None, :], (sin * dy)[:, :, None], out=grid[..., 0])
    torch.sub((cos * dy)[:, :, None], (sin * dx)[:, None, :], out=grid[..., 1])
    # Frames are stacked along the height so that one call over a single table entry serves the clip.
    table = sdf_table()[SHAPES.index(shape)][None]
    flat = grid.div_(TABLE_EXTENT).view(1, -1, width, 2)
    sampled = F.grid_sample(table, flat, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled.reshape(-1, height, width).mul_(radius)
