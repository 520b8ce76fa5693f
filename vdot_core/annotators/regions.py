"""Square and rotated regions of a frame: cutting them out for a network, and mapping points back.

Letters: H W pixels, S side of a cut-out, N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_IN_A_ROW = 8  # squares without overlap along a frame's longer side


@dataclass(frozen=True)
class Region:
    """A rotated rectangle in a frame.

    Attributes:
        x, y: Center, in pixels.
        width, height: Sides, in pixels.
        angle: Clockwise rotation in radians; 0 = upright.
    """

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0

    @classmethod
    def around(cls, frame: Tensor) -> Region:
        """The smallest square around a frame [H, W, 3]."""
        height, width = frame.shape[:2]
        side = max(width, height)
        return cls(width / 2, height / 2, side, side)

    def cut(self, frame: Tensor, width: int, height: int) -> np.ndarray:
        """The region, scaled to a size; black beyond the frame.

        Args:
            frame: [H, W, 3] float in [0, 1].
            width, height: Of the result.

        Returns:
            [height, width, 3] float32 in [0, 1].
        """
        # Sampling alone would skip pixels where the region is much larger than the result.
        factor = max(1, math.floor(min(self.width / width, self.height / height)))
        planes = frame.permute(2, 0, 1)[None].float()
        if factor > 1:
            planes = F.avg_pool2d(planes, factor, ceil_mode=True, count_include_pad=False)
        points = self.to_frame(_grid(width, height)) / factor
        size = np.array([planes.shape[3], planes.shape[2]], np.float32)
        grid = torch.from_numpy((2 * points / size - 1).astype(np.float32)).reshape(1, height, width, 2)
        cut = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return cut[0].permute(1, 2, 0).clamp(0, 1).numpy()

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 2] as fractions of the region, in pixels of the frame."""
        offsets = (points - 0.5) * (self.width, self.height)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        turned = offsets @ np.array([[cosine, sine], [-sine, cosine]])
        return turned + np.array([self.x, self.y])

    def paste(self, values: Tensor, height: int, width: int) -> Tensor:
        """Values [S, S] of an upright region, placed in a frame [H, W]; 0 outside of it."""
        rows = (torch.arange(height) + 0.5 - self.y) / self.height * 2
        columns = (torch.arange(width) + 0.5 - self.x) / self.width * 2
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
        return F.grid_sample(values[None, None], grid, mode="bilinear", align_corners=False)[0, 0]


def _grid(width: int, height: int) -> np.ndarray:
    """[N, 2] centers of all pixels as fractions, row by row."""
    columns, rows = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


def tiles(width: int, height: int, part: float) -> list[Region]:
    """Squares that cover a frame and overlap by half.

    Args:
        width, height: Of the frame.
        part: Of the shorter side that a square is wide; a very long frame has larger ones.
    """
    side = max(part * min(width, height), max(width, height) / MOST_IN_A_ROW)
    centers = []
    for length in (width, height):
        count = max(1, math.ceil((length - side) / (side / 2)) + 1)
        centers.append(np.linspace(side / 2, length - side / 2, count) if count > 1 else [length / 2])
    return [Region(float(x), float(y), side, side) for y in centers[1] for x in centers[0]]
