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


def draw_background(
    rng: np.random.Generator, kind: str, colours: tuple[Tensor, Tensor], pan: Tensor, size: tuple[int, int]
) -> Tensor:
    """Draw a background.

    Args:
        rng: Draws angle, period and noise.
        kind: One of `BACKGROUNDS`.
        colours: Two [3] colours in [0, 1]; a plain one shows the first.
        pan: [F, 2] float, pixels (x, y) by which it has moved in each frame.
        size: (height, width).

    Returns:
        [F, H, W, 3] float in [0, 1].
    """
    height, width = size
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
        rows = (torch.arange(height) - pan[:, 1, None].round()).long() % (2 * height)
        columns = (torch.arange(width) - pan[:, 0, None].round()).long() % (2 * width)
        mix = field[rows[:, :, None], columns[:, None, :]]
    return torch.lerp(colours[0].expand(*mix.shape, 3), colours[1].expand(*mix.shape, 3), mix[..., None])
