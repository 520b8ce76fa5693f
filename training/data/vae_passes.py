"""Full-sequence passes of diffusers' `AutoencoderKLWan`: an entire clip at once, without frame caches.

diffusers feeds a clip in chunks of frames through caches. The same weights over the full sequence give the
same numbers faster, and with gradients: every temporal down- or upsampling hands frame 0 through and applies
its time convolution to the rest. Memory grows with the clip's length.

Letters: B batch, C channels, F pixel frames, T latent frames, H W pixels, h w latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def encode_moments(vae: nn.Module, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode entire clips at once.

    Args:
        vae: An `AutoencoderKLWan`.
        video: [B, 3, F, H, W] float in [-1, 1]; F = 4n + 1, H and W multiples of 8.

    Returns:
        Mean and log-variance, each [B, 16, T, h, w], in the VAE's raw space.
    """
    encoder = vae.encoder
    x = _causal(encoder.conv_in, video)
    for block in encoder.down_blocks:
        x = _residual(block, x) if hasattr(block, "conv1") else _resample(block, x)
    x = _mid(encoder.mid_block, x)
    x = _causal(encoder.conv_out, F.silu(_norm(encoder.norm_out, x)))
    mean, log_variance = _causal(vae.quant_conv, x).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode entire clips at once.

    Args:
        vae: An `AutoencoderKLWan`.
        latents: [B, 16, T, h, w] float, in the VAE's raw space.

    Returns:
        [B, 3, F, H, W] about [-1, 1], not clamped.
    """
    decoder = vae.decoder
    x = _causal(decoder.conv_in, _causal(vae.post_quant_conv, latents))
    x = _mid(decoder.mid_block, x)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = _residual(resnet, x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    return _causal(decoder.conv_out, F.silu(_norm(decoder.norm_out, x)))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """RMS norm over channels, without a division per element."""
    inverse = torch.rsqrt(x.square().sum(1, keepdim=True, dtype=torch.float32) + 1e-12) * norm.scale
    return x * inverse.to(x.dtype) * norm.gamma.to(x.dtype)


def _causal(conv: nn.Module, x: Tensor) -> Tensor:
    """Causal 3D convolution over an entire clip; one frame needs the newest tap only."""
    weight, pad = conv.weight, conv._padding
    if x.shape[2] == 1 and weight.shape[2] > 1:
        return F.conv2d(x[:, :, 0], weight[:, :, -1], conv.bias, padding=pad[0])[:, :, None]
    if pad[4]:
        x = F.pad(x, (0, 0, 0, 0, pad[4], 0))
    return F.conv3d(x, weight, conv.bias, padding=(0, pad[2], pad[0]))


def _residual(block: nn.Module, x: Tensor) -> Tensor:
    shortcut = x if isinstance(block.conv_shortcut, nn.Identity) else _causal(block.conv_shortcut, x)
    h = _causal(block.conv1, F.silu(_norm(block.norm1, x)))
    return shortcut + _causal(block.conv2, F.silu(_norm(block.norm2, h)))


def _resample(block: nn.Module, x: Tensor) -> Tensor:
    if block.mode == "upsample3d" and x.shape[2] > 1:
        rest = _causal(block.time_conv, x[:, :, 1:])
        rest = rearrange(rest, "b (two c) f h w -> b c (f two) h w", two=2)
        x = torch.cat([x[:, :, :1], rest], dim=2)
    batch = x.shape[0]
    x = block.resample(rearrange(x, "b c f h w -> (b f) c h w"))
    x = rearrange(x, "(b f) c h w -> b c f h w", b=batch)
    if block.mode == "downsample3d" and x.shape[2] > 1:
        conv = block.time_conv
        rest = F.conv3d(x, conv.weight, conv.bias, stride=conv.stride)
        x = torch.cat([x[:, :, :1], rest], dim=2)
    return x


def _mid(block: nn.Module, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    attention = block.attentions[0]
    batch, _, _, height, _ = x.shape
    h = _norm(attention.norm, rearrange(x, "b c f h w -> (b f) c h w"))
    q, k, v = rearrange(attention.to_qkv(h), "n (three c) h w -> three n 1 (h w) c", three=3)
    h = F.scaled_dot_product_attention(q, k, v)
    h = attention.proj(rearrange(h, "n 1 (h w) c -> n c h w", h=height).contiguous())
    x = x + rearrange(h, "(b f) c h w -> b c f h w", b=batch)
    return _residual(block.resnets[1], x)
