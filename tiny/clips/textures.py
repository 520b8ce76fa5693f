"""Synthetic clips with the statistics of photographs, for a VAE that also handles real pictures.

A canvas holds 1/f noise in correlated colors, occluding leaves of power-law sizes, strokes and letters,
under random contrast, tint and blur; a camera pans, zooms and turns over it, a second layer may pass.

Letters: F frames, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .sdf import SHAPES, draw_sdf

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&?!%"


def noise_field(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """[size, size] zero-mean, unit-variance noise whose amplitude falls as frequency ** -exponent."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum /= np.maximum(np.hypot(fy, fx), 1 / size) ** exponent
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return (field / (field.std() + 1e-8)).astype(np.float32)


def _color(rng, around: np.ndarray | None, spread: float) -> np.ndarray:
    """A color of the full gamut, or one near a given color."""
    if around is None or rng.random() < 0.3:
        color = rng.random(3) if rng.random() < 0.75 else rng.choice([0.02, 0.98], 3)
        # Most colors of photographs are muted.
        return color if rng.random() < 0.5 else color.mean() + rng.uniform(0.05, 0.5) * (color - color.mean())
    return np.clip(around + rng.normal(0, spread, 3), 0, 1)


def _surface(rng, size: int) -> np.ndarray:
    """[size, size, 3] a colored 1/f field: cloud, rock, skin, sky, by its exponent and spread."""
    light = noise_field(rng, size, rng.uniform(0.8, 2.2))
    tint = noise_field(rng, size, rng.uniform(1.4, 2.4))
    axis = rng.normal(0, 1, 3)
    axis = 0.6 + 0.4 * rng.random() * axis
    chroma = rng.normal(0, 1, 3) * rng.uniform(0, 0.12)
    contrast = rng.choice([0.03, 0.08, 0.15, 0.25], p=[0.25, 0.3, 0.3, 0.15])
    image = _color(rng, None, 0) + contrast * light[..., None] * axis + tint[..., None] * chroma
    if rng.random() < 0.5:
        ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
        angle = rng.uniform(0, 2 * math.pi)
        slope = math.cos(angle) * ramp[None] + math.sin(angle) * ramp[:, None]
        image = image + slope[..., None] * rng.normal(0, 0.35, 3)
    return image.astype(np.float32)


def _leaves(rng, image: np.ndarray) -> np.ndarray:
    """Occluding ellipses, polygons, strokes and letters of power-law sizes, drawn over a surface."""
    from PIL import Image, ImageDraw, ImageFont

    size = image.shape[0]
    canvas = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    home, spread = rng.random(3), rng.uniform(0.05, 0.3)
    kinds = rng.dirichlet([1.0, 1.0, 0.7, 0.4])
    smallest, largest = rng.uniform(1.5, 6), rng.uniform(0.15, 0.4) * size
    for _ in range(int(rng.integers(4, 70))):
        radius = smallest / (1 - rng.random() * (1 - (smallest / largest) ** 2)) ** 0.5
        x, y = rng.uniform(0, size, 2)
        fill = tuple(int(c) for c in _color(rng, home, spread) * 255)
        kind = rng.choice(4, p=kinds)
        if kind == 0:
            stretch = rng.uniform(0.5, 1.5)
            draw.ellipse([x - radius, y - radius * stretch, x + radius, y + radius * stretch], fill=fill)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 7))))
            draw.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], fill=fill)
        elif kind == 2:
            walk = np.cumsum(rng.normal(0, radius, (4, 2)), 0) + np.array([x, y])
            points = [tuple(point) for point in walk]
            draw.line(points, fill=fill, width=int(rng.integers(1, 5)))
        else:
            text = "".join(rng.choice(list(_LETTERS), int(rng.integers(1, 8))))
            font = ImageFont.load_default(size=float(np.clip(radius * 1.6, 8, 60)))
            draw.text((x - radius, y), text, fill=fill, font=font)
    return np.asarray(canvas, dtype=np.float32) / 255


def _canvas(rng, size: int) -> Tensor:
    """[3, size, size] in [0, 1]."""
    image = _surface(rng, size)
    if rng.random() < 0.65:
        image = _leaves(rng, image)
        if rng.random() < 0.6:
            grain = noise_field(rng, size, rng.uniform(0.5, 1.5))
            image = image * (1 + rng.uniform(0.03, 0.2) * grain[..., None])
    if rng.random() < 0.3:
        edge = noise_field(rng, size, rng.uniform(1.5, 2.5))
        weight = 1 / (1 + np.exp(-np.clip(edge * rng.choice([2, 8, 40]), -30, 30)))
        image = image + weight[..., None] * (_surface(rng, size) - image)
    if rng.random() < 0.5:
        image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.7)
    canvas = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).clamp(0, 1)
    canvas = rearrange(canvas, "h w c -> c h w")
    if rng.random() < 0.35:
        reach = int(rng.integers(1, 3))
        kernel = torch.exp(-0.5 * (torch.arange(-2 * reach, 2 * reach + 1) / (0.7 * reach)) ** 2)
        kernel = kernel / kernel.sum()
        blurred = F.conv2d(canvas[:, None], kernel.view(1, 1, 1, -1), padding=(0, 2 * reach))
        canvas = F.conv2d(blurred, kernel.view(1, 1, -1, 1), padding=(2 * reach, 0))[:, 0]
    return canvas


def _camera(rng, num_frames: int, height: int, width: int, size: int) -> Tensor:
    """[F, H, W, 2] sampling grid of a smooth pan, zoom and turn over the canvas."""
    times = torch.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else torch.zeros(1)
    still = rng.random() < 0.25
    move, turn, zoom = (
        (0.0, 0.0, 0.0) if still else (rng.uniform(0, 0.45), rng.normal(0, 0.25), rng.normal(0, 0.2))
    )
    heading = rng.uniform(0, 2 * math.pi)
    angle = rng.uniform(-0.2, 0.2) + turn * times
    scale = rng.uniform(0.75, 1.2) * torch.exp(zoom * times) * max(height, width) / size
    cos, sin = angle.cos() * scale, angle.sin() * scale
    offset = torch.tensor([math.cos(heading), math.sin(heading)]) * move * times[:, None]
    theta = torch.stack(
        [torch.stack([cos, -sin, offset[:, 0]], -1), torch.stack([sin, cos, offset[:, 1]], -1)], 1
    )
    y = torch.linspace(-1, 1, height) * height / max(height, width)
    x = torch.linspace(-1, 1, width) * width / max(height, width)
    plane = torch.stack(
        [x[None].expand(height, -1), y[:, None].expand(-1, width), torch.ones(height, width)], -1
    )
    return torch.einsum("hwk,fck->fhwc", plane, theta.float())


def texture_clip(seed: int, *, height: int = 64, width: int = 64, num_frames: int = 17) -> Tensor:
    """Draw the natural-looking clip of a seed.

    Args:
        seed: Any non-negative integer; equal seeds give equal clips.
        height, width: Frame size in pixels.
        num_frames: Number of frames.

    Returns:
        [F, H, W, 3] float in [0, 1].
    """
    rng = np.random.default_rng([seed, 77])
    size = int(1.7 * max(height, width))
    canvas = _canvas(rng, size)
    grid = _camera(rng, num_frames, height, width, size)
    flat = rearrange(grid, "f h w xy -> 1 (f h) w xy")
    frames = F.grid_sample(canvas[None], flat, padding_mode="reflection", align_corners=True)[0]
    frames = rearrange(frames, "c (f h) w -> f h w c", f=num_frames)
    if rng.random() < 0.4:
        front = F.interpolate(_canvas(rng, max(height, width))[None], (height, width), mode="bilinear")[0]
        start, step = rng.uniform(0, 1, 2) * (width, height), rng.normal(0, 0.3, 2) * (width, height)
        times = torch.linspace(0, 1, num_frames)[:, None]
        centers = torch.tensor(start).float() + times * torch.tensor(step).float()
        angles = rng.uniform(0, 6.28) + rng.normal(0, 1.0) * times[:, 0]
        radius = rng.uniform(0.15, 0.45) * min(height, width)
        distance = draw_sdf(
            SHAPES[int(rng.integers(len(SHAPES)))], centers, angles.float(), radius, height, width
        )
        alpha = (0.5 - distance * rng.choice([1.0, 1.0, 0.3])).clamp(0, 1)[..., None]
        frames = torch.lerp(frames, rearrange(front, "c h w -> 1 h w c").expand_as(frames), alpha)
    if rng.random() < 0.25:
        grain = rng.standard_normal(frames.shape, dtype=np.float32) * rng.uniform(0.005, 0.03)
        frames = frames + torch.from_numpy(grain)
    return frames.clamp(0, 1)
