"""The shapes that move through drawn clips: their kinds, looks and paths.

Letters: F frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .captions import DIRECTIONS
from .sdf import SHAPES, draw_sdf

COLORS = {
    "red": (0.88, 0.10, 0.10),
    "green": (0.08, 0.62, 0.16),
    "blue": (0.10, 0.22, 0.90),
    "yellow": (0.97, 0.90, 0.10),
    "orange": (0.98, 0.52, 0.06),
    "purple": (0.52, 0.10, 0.68),
    "cyan": (0.10, 0.84, 0.88),
    "pink": (0.99, 0.55, 0.75),
    "black": (0.04, 0.04, 0.05),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.50, 0.50, 0.50),
}
OBJECT_COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "pink", "black")
HELD_OUT = frozenset(
    {("purple", "star"), ("cyan", "heart"), ("orange", "cross"), ("green", "ring"), ("pink", "triangle")}
)
SIZES = {"small": 0.18, "medium": 0.24, "large": 0.31}
PATHS = ("linear", "bounce", "circle", "still")
PATH_ODDS = np.cumsum([0.5, 0.2, 0.2, 0.1])
FRAME_RATE = 16
REACH = 1.2  # of a radius: no shape's outline is farther from its center
REFERENCE_FILL = 0.42  # of the canvas: the radius of a shape on its reference


@dataclass(frozen=True, eq=False)
class ShapeTrack:
    """One drawn object, with its position in every frame.

    Attributes:
        shape, color, size_name: The words of the caption.
        path: 'still', 'linear', 'bounce' or 'circle'; direction names a linear path's heading.
        spin: True if it rotates.
        rgb: The color drawn (the named one, slightly varied), each in [0, 1].
        radius: Pixels from the center to the outline, about.
        nearness: 0 far .. 1 near, constant over the clip.
        centers: [F, 2] float, (x, y) in pixels; angles: [F] float, radians.
    """

    shape: str
    color: str
    size_name: str
    path: str
    direction: str
    spin: bool
    rgb: tuple[float, float, float]
    radius: float
    nearness: float
    centers: Tensor
    angles: Tensor

    def distance(self, height: int, width: int) -> Tensor:
        """[F, H, W] pixels to the outline, negative inside."""
        return draw_sdf(self.shape, self.centers, self.angles, self.radius, height, width)

    def paint(self, frames: Tensor) -> None:
        """Draw itself into [F, H, W, 3], in place, antialiased; only its surroundings are touched."""
        height, width = frames.shape[1:3]
        side = math.ceil(2 * (REACH * self.radius + 1)) + 1
        rows, columns = min(side, height), min(side, width)
        limit = torch.tensor([width - columns, height - rows])
        corners = (self.centers - (side - 1) / 2).floor().clamp_min_(0).minimum(limit)
        distance = draw_sdf(self.shape, self.centers, self.angles, self.radius, rows, columns, corners)
        alpha = (0.5 - distance).clamp_(0, 1)
        color = torch.tensor(self.rgb)
        windows = corners.int().tolist()
        for frame, cover, (x, y) in zip(frames, alpha[..., None], windows, strict=True):
            frame[y : y + rows, x : x + columns].lerp_(color, cover)

    def displacement(self, height: int, width: int) -> Tensor:
        """[F-1, 2, H, W] (x, y) by which what is at a pixel moves to the next frame, were it the object's."""
        here, there = self.centers[:-1], self.centers[1:]
        turns = self.angles.diff()
        cos, sin = turns.cos()[:, None, None], turns.sin()[:, None, None]
        x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
        dx, dy = (x - here[:, :1])[:, None, :], (y - here[:, 1:])[:, :, None]
        moved_x = cos * dx - sin * dy + there[:, 0, None, None] - x
        moved_y = sin * dx + cos * dy + there[:, 1, None, None] - y[:, None]
        return torch.stack([moved_x, moved_y], dim=1)

    def reference(self, size: int) -> Tensor:
        """[size, size, 3] itself upright on white, filling most of the canvas."""
        center = torch.full((1, 2), size / 2)
        distance = draw_sdf(self.shape, center, torch.zeros(1), REFERENCE_FILL * size, size, size)
        alpha = (0.5 - distance).clamp(0, 1)[0]
        return 1 - alpha[..., None] * (1 - torch.tensor(self.rgb))


def pick(rng: np.random.Generator, items: Sequence, cumulative: np.ndarray | None = None):
    """One of the items, evenly or by cumulative odds: `Generator.choice`, without its cost."""
    if cumulative is None:
        return items[int(rng.integers(len(items)))]
    return items[int((cumulative / cumulative[-1]).searchsorted(rng.random(), side="right"))]


def times(num_frames: int) -> Tensor:
    """[F] float, seconds."""
    return torch.arange(num_frames) / FRAME_RATE


def vary(rng: np.random.Generator, color: str) -> tuple[float, float, float]:
    """A named color, slightly varied."""
    return tuple(min(max(c + rng.uniform(-0.03, 0.03), 0.0), 1.0) for c in COLORS[color])


def _reflect(x: Tensor, low: float, high: float) -> Tensor:
    """Positions of a ball bouncing between two walls."""
    span = max(high - low, 1e-6)
    phase = ((x - low) / span) % 2
    return low + span * torch.where(phase > 1, 2 - phase, phase)


def _turns(path: Tensor) -> bool:
    """True if a path [F, 2] reverses along an axis, by more than rounding."""
    steps = path.diff(dim=0)
    return bool(torch.minimum(steps.amax(0), -steps.amin(0)).max() > 1e-3)


def _bouncing(start: Tensor, velocity: Tensor, moments: Tensor, walls: Sequence[tuple]) -> Tensor:
    """[F, 2] a ball's positions; one that would meet no wall starts so late that it meets one half-way.

    `walls` are the lowest and the highest position along each axis.
    """

    def path(late: float) -> Tensor:
        straight = start + velocity * (moments[:, None] + late)
        return torch.stack([_reflect(straight[:, i], *wall) for i, wall in enumerate(walls)], dim=-1)

    track = path(0.0)
    # Two frames show one step, which has nothing to turn from.
    if len(moments) < 3 or _turns(track):
        return track
    going = zip(start.tolist(), velocity.tolist(), walls, strict=True)
    hits = [(wall[v > 0] - x) / v for x, v, wall in going if v]
    return path(min(hits) - float(moments[-1]) / 2)


def _centers(
    rng, path: str, heading: float, radius: float, num_frames: int, height: int, width: int
) -> Tensor:
    """[F, 2] positions in pixels of one path inside the frame."""
    moments, unit = times(num_frames), min(height, width)
    duration = max(num_frames - 1, 1) / FRAME_RATE
    margin = [min(radius, side / 2) for side in (width, height)]
    middle = torch.tensor([rng.uniform(0.36, 0.64) * width, rng.uniform(0.36, 0.64) * height])
    velocity = torch.tensor([math.cos(heading), math.sin(heading)]) * unit
    if path == "still":
        return middle.repeat(num_frames, 1)
    if path == "linear":
        traveled = min(rng.uniform(0.3, 0.55) * duration, 0.55)
        return middle + velocity * traveled * (moments[:, None] / duration - 0.5)
    if path == "circle":
        orbit, turns = rng.uniform(0.15, 0.28) * unit, rng.uniform(0.4, 0.75)
        phase = rng.uniform(0, 2 * math.pi)
        around = phase + pick(rng, (-1, 1)) * 2 * math.pi * turns * moments
        return torch.tensor([width / 2, height / 2]) + orbit * torch.stack([around.cos(), around.sin()], -1)
    walls = [(m, side - m) for m, side in zip(margin, (width, height), strict=True)]
    return _bouncing(middle, velocity * rng.uniform(0.5, 0.8), moments, walls)


def pick_object(
    rng: np.random.Generator,
    *,
    held_out: bool,
    used_colors: Sequence[str],
    nearness: float,
    num_frames: int,
    size: tuple[int, int],
) -> ShapeTrack:
    """Choose one object's look and path.

    Args:
        rng: Draws everything.
        held_out: Allow pairs of `HELD_OUT`.
        used_colors: Colors of the other objects.
        nearness: 0 far .. 1 near.
        num_frames: Of the path.
        size: (height, width) in pixels.
    """
    while True:
        color, shape = pick(rng, OBJECT_COLORS), pick(rng, SHAPES)
        if color not in used_colors and (held_out or (color, shape) not in HELD_OUT):
            break
    size_name = pick(rng, tuple(SIZES))
    radius = SIZES[size_name] * rng.uniform(0.92, 1.08) * min(size)
    path = pick(rng, PATHS, PATH_ODDS)
    direction = int(rng.integers(8))
    heading = direction * math.pi / 4 + rng.uniform(-0.25, 0.25)
    spin = bool(rng.random() < 0.3) and shape not in ("circle", "ring")
    turn = pick(rng, (-1, 1)) * rng.uniform(0.25, 0.6) * 2 * math.pi if spin else 0.0
    angles = rng.uniform(-0.15, 0.15) + turn * times(num_frames)
    rgb = vary(rng, color)
    centers = _centers(rng, path, heading, radius, num_frames, *size)
    heading_name = DIRECTIONS[direction]
    return ShapeTrack(
        shape, color, size_name, path, heading_name, spin, rgb, radius, nearness, centers, angles
    )
