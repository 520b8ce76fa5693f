"""Backgrounds of drawn clips: plain, gradient, and textures that drift with the camera.

Letters: F frames, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

BACKGROUNDS = ("plain", "gradient", "striped", "checkered", "dotted", "cloudy")


def _cloud(rng: np.random.Generator, height: int, width: int) -> Tensor:
    """[height, width] smooth noise in [0, 1] whose power falls with frequency."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    field = np.fft.irfft2(
        spectrum / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** 1.6, (height, width)
    )
    low, high = field.min(), field.max()
    return torch.from_numpy(((field - low) / (high - low)).astype(np.float32))


def two_shades(rng: np.random.Generator, color: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """A color and a lighter or darker shade of it, with the same name.

    Args:
        rng: Draws the direction and the distance.
        color: Red, green, blue in [0, 1].

    Returns:
        Two [3] float tensors in [0, 1].
    """
    base = torch.tensor(color)
    brightness = float(base.mean())
    # Away from the nearer end, where the name would be lost: dark colors get lighter, light ones darker.
    lighter = rng.random() < 0.5 if 0.3 < brightness < 0.6 else brightness <= 0.3
    shade = torch.lerp(base, torch.full((3,), float(lighter)), float(rng.uniform(0.18, 0.32)))
    return base, shade


def drawn_pan(kind: str, pan: Tensor) -> Tensor:
    """Pixels [F, 2] by which a background is drawn to have moved: clouds move by integer pixels."""
    return pan.round() if kind == "cloudy" else pan


def draw_background(
    rng: np.random.Generator, kind: str, colors: tuple[Tensor, Tensor], pan: Tensor, size: tuple[int, int]
) -> Tensor:
    """Draw a background.

    Args:
        rng: Draws angle, period and noise.
        kind: One of `BACKGROUNDS`.
        colors: Two [3] colors in [0, 1] (`two_shades`); a plain one shows the first.
        pan: [F, 2] float, pixels (x, y) by which it has moved in each frame.
        size: (height, width).

    Returns:
        [F, H, W, 3] float in [0, 1]; one frame expanded to all where nothing moves.
    """
    num_frames, (height, width) = len(pan), size
    if not pan.any():
        pan = pan[:1]
    unit = min(height, width)
    y = (torch.arange(height) + 0.5)[None, :, None] - pan[:, 1, None, None]
    x = (torch.arange(width) + 0.5)[None, None, :] - pan[:, 0, None, None]
    angle = rng.uniform(0, 2 * math.pi)
    along = (math.cos(angle) * x + math.sin(angle) * y) / unit
    period = rng.uniform(0.18, 0.34)
    softness = 0.5 * unit * period
    if kind == "plain":
        mix = torch.zeros(len(pan), height, width)
    elif kind == "gradient":
        mix = (0.5 + (along - along[:1].mean()) * rng.uniform(0.7, 1.1)).clamp(0, 1)
    elif kind == "striped":
        mix = (0.5 + (along * 2 * math.pi / period).sin() * softness / 3).clamp(0, 1)
    elif kind == "checkered":
        waves = (x / unit * math.pi / period).sin() * (y / unit * math.pi / period).sin()
        mix = (0.5 + waves * softness).clamp(0, 1)
    elif kind == "dotted":
        dx, dy = ((x / unit / period) % 1 - 0.5), ((y / unit / period) % 1 - 0.5)
        mix = (0.5 + (0.27 - torch.sqrt(dx**2 + dy**2)) * unit * period).clamp(0, 1)
    else:
        field = _cloud(rng, 2 * height, 2 * width)
        shift = drawn_pan(kind, pan)
        rows = (torch.arange(height) - shift[:, 1, None]).long() % (2 * height)
        columns = (torch.arange(width) - shift[:, 0, None]).long() % (2 * width)
        mix = field[rows[:, :, None], columns[:, None, :]]
    pixels = torch.lerp(colors[0].expand(*mix.shape, 3), colors[1].expand(*mix.shape, 3), mix[..., None])
    return pixels.expand(num_frames, height, width, 3)
