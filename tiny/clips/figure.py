"""The stick figure that walks, runs, waves and jumps: its 18 exact key points, its drawing and its motion.

Letters: F frames, H height, W width, S parts of the body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .objects import FRAME_RATE, OBJECT_COLORS, pick, times, vary

ACTIONS = ("walk", "run", "wave", "jump")
ACTION_ODDS = np.cumsum([0.45, 0.2, 0.2, 0.15])
FIGURE_SIZES = {"small": 0.55, "medium": 0.68, "large": 0.82}  # heights, of the shorter side
SHAPE = "stick figure"
HEADS_HIGH = 8
HEAD_RADIUS = 0.62  # this and the joints are in heads
STEP_SECONDS, RUN_SECONDS, WAVE_SECONDS, JUMP_SECONDS = 0.9, 0.6, 0.5, 0.7
JUMP_HEADS = 1.0
SCORE = 0.9
# Pairs of the points below: COCO-18's joints, then the middle of the hips and of the head.
HIPS, HEAD = 18, 19
PARTS = (
    (1, HIPS), (1, HEAD), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7),
    (HIPS, 8), (8, 9), (9, 10), (HIPS, 11), (11, 12), (12, 13),
)  # fmt: skip

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class FigureTrack:
    """A stick figure in every frame; it has what a `ShapeTrack` has, and joints.

    Attributes:
        color, size_name: The words of the caption; shape is always 'stick figure'.
        path: One of `ACTIONS`; direction: 'left' or 'right', where it faces.
        rgb: The color drawn, each in [0, 1].
        radius: Half its height in pixels; half_width: of a limb, in pixels.
        centers: [F, 2] float, the body's middle (x, y) in pixels.
        joints: [F, 18, 2] float, COCO-18 (x, y) in pixels.
    """

    color: str
    size_name: str
    path: str
    direction: str
    rgb: tuple[float, float, float]
    radius: float
    half_width: float
    centers: Tensor
    joints: Tensor
    shape: str = SHAPE
    nearness: float = 1.0
    spin: bool = False

    @property
    def angles(self) -> Tensor:
        """[F] float, zeros: it does not turn."""
        return torch.zeros(len(self.centers))

    @cached_property
    def _points(self) -> Tensor:
        """[F, 20, 2] joints, middle of the hips, middle of the head."""
        hips = self.joints[:, [8, 11]].mean(1, keepdim=True)
        head = self.joints[:, 14:].mean(1, keepdim=True)
        return torch.cat([self.joints, hips, head], dim=1)

    @property
    def head_radius(self) -> float:
        """Pixels."""
        return HEAD_RADIUS * 2 * self.radius / HEADS_HIGH

    @property
    def head_boxes(self) -> Tensor:
        """[F, 4] float (left, top, right, bottom) around the head, in pixels, outside the frame too."""
        head = self._points[:, HEAD]
        return torch.cat([head - self.head_radius, head + self.head_radius], dim=1)

    def _part_distances(self, height: int, width: int) -> Tensor:
        """[S + 1, F, H, W] pixels to each part's outline, the head last."""
        x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
        parts = []
        for start, end in PARTS:
            (ax, ay), (ex, ey) = _columns(self._points[:, start]), _columns(self._edge(start, end))
            dx, dy = x - ax, y - ay
            along = ((dx * ex + dy * ey) / (ex * ex + ey * ey).clamp_min(1e-9)).clamp_(0, 1)
            parts.append(torch.hypot(dx - along * ex, dy - along * ey).sub_(self.half_width))
        hx, hy = _columns(self._points[:, HEAD])
        parts.append(torch.hypot(x - hx, y - hy) - self.head_radius)
        return torch.stack(parts)

    def _edge(self, start: int, end: int) -> Tensor:
        return self._points[:, end] - self._points[:, start]

    def distance(self, height: int, width: int) -> Tensor:
        """[F, H, W] pixels to the outline, negative inside."""
        return self._part_distances(height, width).amin(0)

    def paint(self, frames: Tensor) -> None:
        """Draw itself into [F, H, W, 3], in place, antialiased."""
        alpha = (0.5 - self.distance(*frames.shape[1:3])).clamp_(0, 1)
        frames.lerp_(torch.tensor(self.rgb).expand_as(frames), alpha[..., None])

    def displacement(self, height: int, width: int) -> Tensor:
        """[F-1, 2, H, W] (x, y) by which each pixel moves with the part of the body that is nearest to it."""
        x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
        nearest = self._part_distances(height, width)[:, :-1].argmin(0)
        (hx, hy), (nx, ny) = _columns(self._points[:-1, HEAD]), _columns(self._points[1:, HEAD])
        shape = nearest.shape
        flow_x, flow_y = (nx - hx).expand(shape).clone(), (ny - hy).expand(shape).clone()
        for number, (start, end) in enumerate(PARTS):
            ax, ay = _columns(self._points[:, start])
            ex, ey = _columns(self._edge(start, end))
            length = torch.hypot(ex, ey).clamp_min(1e-6)
            ux, uy = ex / length, ey / length
            dx, dy = x - ax[:-1], y - ay[:-1]
            along, across = dx * ux[:-1] + dy * uy[:-1], dy * ux[:-1] - dx * uy[:-1]
            # A limb that turns out of the picture's plane gets shorter; beyond its ends nothing is stretched.
            inside = along.clamp(min=0).minimum(length[:-1])
            moved = inside * length[1:] / length[:-1] + (along - inside)
            next_x = ax[1:] + moved * ux[1:] - across * uy[1:]
            next_y = ay[1:] + moved * uy[1:] + across * ux[1:]
            own = nearest == number
            flow_x, flow_y = torch.where(own, next_x - x, flow_x), torch.where(own, next_y - y, flow_y)
        return torch.stack([flow_x, flow_y], dim=1)

    def reference(self, size: int) -> Tensor:
        """[size, size, 3] itself standing on white, filling most of the canvas."""
        radius = 0.44 * size
        center = torch.full((1, 2), size / 2)
        joints = _place(center, [_standing()], radius, self.direction)
        half_width = self.half_width * radius / self.radius
        posed = FigureTrack(
            self.color, self.size_name, "wave", self.direction, self.rgb, radius, half_width, center, joints
        )
        frames = torch.ones(1, size, size, 3)
        posed.paint(frames)
        return frames[0]


def _columns(points: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of [F, 2], each [F, 1, 1]."""
    return points[:, 0, None, None], points[:, 1, None, None]


def _limb(start: Point, swing: float, bend: float, upper: float, lower: float) -> tuple[Point, Point]:
    """Its two further joints; swing and bend are angles from hanging down, forwards."""
    x, y = start
    joint = (x + upper * math.sin(swing), y + upper * math.cos(swing))
    return joint, (joint[0] + lower * math.sin(swing + bend), joint[1] + lower * math.cos(swing + bend))


def _body(rise: float, arms: list[Point], legs: list[Point]) -> list[Point]:
    """COCO-18 joints in heads from the body's middle, y down, facing right; (swing, bend) for each limb."""
    nose, neck = (0.45, -3.2 - rise), (0.05, -2.5 - rise)
    joints = [nose, neck]
    for side, angles in zip((-1, 1), arms, strict=True):
        shoulder = (0.05 + 0.35 * side, -2.4 - rise)
        joints += [shoulder, *_limb(shoulder, *angles, 1.3, 1.2)]
    for side, angles in zip((-1, 1), legs, strict=True):
        hip = (0.22 * side, 0.1 - rise)
        joints += [hip, *_limb(hip, *angles, 1.9, 1.9)]
    eyes, ears = [(0.42, -3.4 - rise), (0.58, -3.4 - rise)], [(0.05, -3.3 - rise), (0.2, -3.3 - rise)]
    return joints + eyes + ears


def _standing(arms: list[Point] | None = None) -> list[Point]:
    return _body(0.0, arms or [(-0.35, 0.1), (0.35, 0.1)], [(-0.13, 0.0), (0.13, 0.0)])


def _stride(phase: float) -> list[Point]:
    """One moment of a walk."""
    arms = [(-0.55 * s * math.sin(phase), 0.35) for s in (-1, 1)]
    legs = [(0.5 * s * math.sin(phase), -0.35 * max(0.0, s * math.cos(phase))) for s in (-1, 1)]
    return _body(0.12 * abs(math.sin(phase)), arms, legs)


def _running(phase: float) -> list[Point]:
    arms = [(-0.9 * s * math.sin(phase), 1.3) for s in (-1, 1)]
    legs = [(0.8 * s * math.sin(phase) + 0.1, -0.3 - 0.9 * max(0.0, s * math.cos(phase))) for s in (-1, 1)]
    return _body(0.3 * abs(math.sin(phase)), arms, legs)


def _waving(phase: float) -> list[Point]:
    return _standing([(-0.3, 0.1), (2.2, 0.45 + 0.55 * math.sin(phase))])


def _jumping(phase: float) -> list[Point]:
    """Off the ground for half the time, arms up; knees bent for the other half."""
    air, crouch = max(0.0, math.sin(phase)), max(0.0, -math.sin(phase))
    arms = [(s * (0.4 + 2.0 * air), 0.1 * s) for s in (-1, 1)]
    legs = [(0.15 * s + 0.55 * crouch, -1.1 * crouch) for s in (-1, 1)]
    return _body(JUMP_HEADS * air - 0.45 * crouch, arms, legs)


MOMENTS = {
    "walk": (_stride, STEP_SECONDS),
    "run": (_running, RUN_SECONDS),
    "wave": (_waving, WAVE_SECONDS),
    "jump": (_jumping, JUMP_SECONDS),
}


def _place(centers: Tensor, bodies: list[list[Point]], radius: float, direction: str) -> Tensor:
    """[F, 18, 2] in pixels of bodies in heads."""
    side = 1.0 if direction == "right" else -1.0
    unit = 2 * radius / HEADS_HIGH
    return centers[:, None] + torch.tensor(bodies) * torch.tensor([side * unit, unit])


def pick_figure(rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> FigureTrack:
    """Choose a figure's look and what it does.

    Args:
        rng: Draws everything.
        num_frames: Length of the clip.
        size: (height, width) in pixels.
    """
    height, width = size
    color, size_name, path = (
        pick(rng, OBJECT_COLORS),
        pick(rng, tuple(FIGURE_SIZES)),
        pick(rng, ACTIONS, ACTION_ODDS),
    )
    direction = pick(rng, ("left", "right"))
    radius = FIGURE_SIZES[size_name] * rng.uniform(0.95, 1.05) * min(size) / 2
    seconds = times(num_frames)
    traveled = torch.zeros(num_frames)
    if path in ("walk", "run"):
        speed = rng.uniform(0.5, 0.75) * (1.0 if path == "walk" else 1.5) * 2 * radius
        room = max(width - 1.1 * radius, 0.2 * width)
        duration = max(num_frames - 1, 1) / FRAME_RATE
        traveled = (seconds / duration - 0.5) * min(speed * duration, room)
    middle_x = width / 2 + rng.uniform(-0.08, 0.08) * width
    x = middle_x + (traveled if direction == "right" else -traveled)
    slack = max(0.0, height / 2 - radius * (1 + 1.2 * JUMP_HEADS / HEADS_HIGH))
    y = height / 2 + rng.uniform(0, 1) * slack * 0.6
    moment, period = MOMENTS[path]
    phase = rng.uniform(0, 2 * math.pi)
    bodies = [moment(phase + 2 * math.pi * float(t) / period) for t in seconds]
    centers = torch.stack([x, torch.full_like(x, y)], dim=-1)
    joints = _place(centers, bodies, radius, direction)
    half_width = rng.uniform(0.26, 0.34) * 2 * radius / HEADS_HIGH
    return FigureTrack(
        color, size_name, path, direction, vary(rng, color), radius, half_width, centers, joints
    )


def keypoints(joints: Tensor, height: int, width: int) -> list[dict]:
    """Joints [F, 18, 2] in pixels as OpenPose key points, one dict for each frame."""
    scores = torch.full((*joints.shape[:2], 1), SCORE)
    rows = torch.cat([joints, scores], dim=-1).flatten(1).tolist()
    return [
        {"people": [{"pose_keypoints_2d": row}], "canvas_width": width, "canvas_height": height}
        for row in rows
    ]


def walk_along(centers: Tensor, height: int, width: int) -> Tensor:
    """[F, 18, 2] joints of someone who walks along with an object whose centers [F, 2] are given."""
    bodies = [_stride(2 * math.pi * frame / FRAME_RATE / STEP_SECONDS) for frame in range(len(centers))]
    direction = "right" if centers[-1, 0] >= centers[0, 0] else "left"
    middle = torch.stack([centers[:, 0], torch.full((len(centers),), 0.46 * height)], dim=-1)
    return _place(middle, bodies, 0.44 * height, direction)
