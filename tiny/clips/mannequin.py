"""A drawn person with known joints: shaded limbs in clothes, a face, and a floor, seen from the front.

Unlike the stick figure, detectors of people find it. Letters: H W pixels.
"""

import math

import numpy as np
import torch

HEADS_HIGH = 7.5
SKIN, HAIR, SHIRT, TROUSERS, SHOES = (
    np.array(color) / 255
    for color in ((224, 172, 140), (60, 40, 28), (52, 96, 160), (56, 58, 66), (30, 26, 24))
)
BACKGROUND, FLOOR = np.array([0.80, 0.82, 0.83]), np.array([0.62, 0.58, 0.53])
# Right arm, left arm, right leg, left leg: angles of the upper and the lower part from hanging down,
# outwards, in degrees.
Limbs = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
POSES: dict[str, Limbs] = {
    "standing": ((8, 8), (8, 8), (4, 4), (4, 4)),
    "arms out": ((85, 90), (85, 90), (8, 8), (8, 8)),
    "hands up": ((150, 165), (150, 165), (6, 6), (6, 6)),
    "waving": ((10, 10), (95, 175), (5, 5), (5, 5)),
    "on hips": ((45, -35), (45, -35), (14, 14), (14, 14)),
    "lunge": ((30, 60), (60, 80), (35, 5), (12, 12)),
}


def joints(limbs: Limbs) -> np.ndarray:
    """[18, 2] OpenPose's joints in heads from the middle of the hips, y down; the person's right is at -x."""
    arms, legs = limbs[:2], limbs[2:]
    points = {0: (0.0, -3.1), 1: (0.0, -2.35), 14: (-0.17, -3.25), 15: (0.17, -3.25)}
    points |= {16: (-0.4, -3.2), 17: (0.4, -3.2)}
    for side, arm, leg, shoulder, hip in ((-1, arms[0], legs[0], 2, 8), (1, arms[1], legs[1], 5, 11)):
        points[shoulder] = (0.8 * side, -2.3)
        points[hip] = (0.42 * side, 0.0)
        for start, angles, lengths in ((shoulder, arm, (1.3, 1.15)), (hip, leg, (1.75, 1.7))):
            for number, (angle, length) in enumerate(zip(angles, lengths, strict=True)):
                x, y = points[start + number]
                turn = math.radians(angle)
                points[start + number + 1] = (x + side * length * math.sin(turn), y + length * math.cos(turn))
    return np.array([points[index] for index in range(18)])


def draw_person(limbs: Limbs, *, height: int, width: int, body_px: float, x: float, y: float):
    """A picture of someone and the joints in it.

    Args:
        limbs: See `POSES`.
        height, width: Of the picture.
        body_px: How tall they stand.
        x, y: Of the middle of the hips.

    Returns:
        frame: [H, W, 3] float in [0, 1].
        points: [18, 2] joints in pixels.
        mask: [H, W] float, 1 = body.
    """
    head = body_px / HEADS_HIGH
    points = joints(limbs) * head + (x, y)
    rows = ((np.arange(height) + 0.5) / height)[:, None, None]
    share = np.clip((rows - 0.8) * 12, 0, 1)
    frame = BACKGROUND * (1.05 - 0.2 * rows) * (1 - share) + FLOOR * share
    canvas = _Canvas(frame.repeat(width, axis=1), head)
    for hip in (8, 11):
        canvas.limb(points[hip], points[hip + 1], 0.36, 0.25, TROUSERS)
        canvas.limb(points[hip + 1], points[hip + 2], 0.25, 0.15, TROUSERS)
        foot = points[hip + 2] + np.array([0.12 * (-1 if hip == 8 else 1), 0.22]) * head
        canvas.limb(_moved(points[hip + 2], 0.1 * head), foot, 0.17, 0.17, SHOES)
    canvas.limb(_moved(points[1], -0.55 * head), _moved(points[1], 0.1 * head), 0.19, 0.24, SKIN)
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        top = (points[2] + points[5]) / 2 + share * (points[5] - points[2]) / 2 * 0.8
        low = (points[8] + points[11]) / 2 + share * (points[11] - points[8]) / 2
        canvas.limb(_moved(top, 0.15 * head), _moved(low, -0.1 * head), 0.34, 0.36, SHIRT)
    for shoulder in (2, 5):
        elbow, wrist = points[shoulder + 1], points[shoulder + 2]
        canvas.limb(elbow, wrist, 0.17, 0.11, SKIN)
        canvas.limb(wrist, wrist + (wrist - elbow) * 0.3, 0.13, 0.1, SKIN)
        canvas.limb(points[shoulder], elbow, 0.27, 0.2, SHIRT)
    _draw_head(canvas, points, head)
    frame, mask = np.clip(canvas.frame, 0, 1), canvas.mask
    return torch.from_numpy(frame).float(), points, torch.from_numpy(mask).float()


def waving_person(num_frames: int = 17, side: int = 64) -> torch.Tensor:
    """[F, S, S, 3] someone who stands and moves both arms, once around."""
    frames = []
    for index in range(num_frames):
        phase = 2 * math.pi * index / (num_frames - 1)
        swing = math.sin(phase)
        limbs = ((30 + 25 * swing, 35 + 45 * swing), (120 + 30 * swing, 150 + 40 * swing), (8, 8), (10, 6))
        x = (0.5 + 0.05 * math.sin(phase / 2)) * side
        size = {"height": side, "width": side, "body_px": 0.78 * side}
        frames.append(draw_person(limbs, **size, x=x, y=0.53 * side)[0])
    return torch.stack(frames)


def _draw_head(canvas: "_Canvas", points: np.ndarray, head: float) -> None:
    middle = _moved(points[0], -0.05 * head)
    canvas.ellipse(_moved(middle, -0.18 * head), 0.43, 0.52, HAIR)
    for ear in (16, 17):
        canvas.ellipse(points[ear], 0.07, 0.12, SKIN * 0.92)
    canvas.ellipse(_moved(middle, 0.06 * head), 0.36, 0.46, SKIN)
    for eye in (14, 15):
        canvas.ellipse(points[eye], 0.075, 0.04, np.array([0.97, 0.97, 0.97]))
        canvas.ellipse(points[eye], 0.035, 0.038, np.array([0.15, 0.1, 0.08]))
        canvas.ellipse(_moved(points[eye], -0.11 * head), 0.1, 0.022, HAIR)
    canvas.ellipse(points[0], 0.06, 0.05, SKIN * 0.84)
    canvas.ellipse(_moved(points[0], 0.2 * head), 0.13, 0.035, np.array([0.72, 0.34, 0.33]))


def _moved(point: np.ndarray, down: float) -> np.ndarray:
    return point + np.array([0.0, down])


class _Canvas:
    """Draws shaded, antialiased shapes; sizes are in heads."""

    def __init__(self, frame: np.ndarray, head: float):
        self.frame, self.head = frame, head
        self.mask = np.zeros(frame.shape[:2])

    def limb(self, start: np.ndarray, end: np.ndarray, first: float, last: float, color: np.ndarray) -> None:
        """A tapered limb, lit from the upper left."""
        rows, columns, window = self._around(start, end, max(first, last))
        dx, dy = end - start
        length = max(math.hypot(dx, dy), 1e-6)
        px, py = columns - start[0], rows - start[1]
        along = np.clip((px * dx + py * dy) / length**2, 0, 1)
        radius = (first + (last - first) * along) * self.head
        across = np.hypot(px - along * dx, py - along * dy)
        side = (px * dy - py * dx) / length / radius  # -1 at the left of someone who hangs down
        light = 0.72 + 0.28 * np.sqrt(np.clip(1 - (across / radius) ** 2, 0, 1)) - 0.12 * side
        self._paint(window, radius - across, light[..., None] * color)

    def ellipse(self, middle: np.ndarray, half_width: float, half_height: float, color: np.ndarray) -> None:
        """An upright ellipse, darker at its edge."""
        rows, columns, window = self._around(middle, middle, max(half_width, half_height))
        px, py = (columns - middle[0]) / half_width, (rows - middle[1]) / half_height
        reach = np.hypot(px, py) / self.head
        light = 0.82 + 0.18 * np.sqrt(np.clip(1 - reach**2, 0, 1))
        inside_px = (1 - reach) * min(half_width, half_height) * self.head
        self._paint(window, inside_px, light[..., None] * color)

    def _around(self, start: np.ndarray, end: np.ndarray, reach: float):
        """Rows and columns of the pixels that a shape may touch, and their place in the frame."""
        low = np.maximum(np.minimum(start, end) - reach * self.head - 2, 0).astype(int)
        high = np.maximum(np.maximum(start, end) + reach * self.head + 2, 0).astype(int)
        window = slice(low[1], high[1]), slice(low[0], high[0])
        height, width = self.mask[window].shape
        rows, columns = np.mgrid[:height, :width]
        return rows + low[1] + 0.5, columns + low[0] + 0.5, window

    def _paint(self, window: tuple[slice, slice], inside_px: np.ndarray, color: np.ndarray) -> None:
        alpha = np.clip(inside_px + 0.5, 0, 1)
        self.frame[window] += (color - self.frame[window]) * alpha[..., None]
        self.mask[window] = np.maximum(self.mask[window], alpha)
