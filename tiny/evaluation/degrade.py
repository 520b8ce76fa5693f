"""Degrades true clips like generated ones, so that the evaluation network is robust to it.

Letters: B clips, F frames, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from training.data.wan_vae import decode_video, encode_video


def blur(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [F, H, W, 3] over space; sigma in pixels."""
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = rearrange(frames, "f h w c -> (f c) 1 h w")
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return rearrange(x, "(f c) 1 h w -> f h w c", c=3)


def degrade(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, lower resolution, color shifts and noise, each by chance.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        rng: Draws the degradations.

    Returns:
        The same shape, in [0, 1].
    """
    if rng.random() < 0.45:
        frames = blur(frames, rng.uniform(0.4, 1.5))
    if rng.random() < 0.15:
        x = F.interpolate(rearrange(frames, "f h w c -> f c h w"), scale_factor=0.5, mode="area")
        frames = rearrange(F.interpolate(x, scale_factor=2, mode="bilinear"), "f c h w -> f h w c")
    if rng.random() < 0.5:
        gain, shift = rng.uniform(0.9, 1.06, 3), rng.normal(0, 0.02, 3)
        frames = frames * torch.tensor(gain).float() + torch.tensor(shift).float()
    if rng.random() < 0.3:
        noise = rng.standard_normal(frames.shape, dtype=np.float32) * rng.uniform(0.005, 0.06)
        frames = frames + torch.from_numpy(noise)
    return frames.clamp(0, 1)


@torch.no_grad()
def through_vae(
    vae: nn.Module, videos: Tensor, noise: float, generator: torch.Generator, *, bf16: bool = False
) -> Tensor:
    """Encode, disturb the latents, decode.

    Args:
        vae: From `training.data.wan_vae.load_vae`.
        videos: [B, F, H, W, 3] float in [0, 1], F = 4n + 1.
        noise: Standard deviation added to the normalized latents.
        generator: Draws it.
        bf16: Compute under bfloat16 autocast.

    Returns:
        The same shape, in [0, 1], on the CPU.
    """
    device = next(vae.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        latents = encode_video(vae, videos.to(device))
        latents = latents + noise * torch.randn(latents.shape, generator=generator).to(device)
        return decode_video(vae, latents).float().cpu()
