"""Wan 2.1 VAEs: reading a native file or a diffusers folder, and clips to normalized latents and back.

Letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from vdot_core.checkpoints import read_tensors
from vdot_core.foreign import load_weights
from vdot_core.text import shown
from vdot_core.vcu import LATENT_CHANNELS

from ..diffusers_package import import_diffusers
from .vae_passes import decode_latents, encode_moments
from .weights import assign_weights

MAX_BASE_DIM = 1024

# Of Wan 2.1's raw latents, per channel.
LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def build_vae(base_dim: int) -> nn.Module:
    """Build a Wan 2.1 VAE with fresh weights, on the CPU in float32.

    Args:
        base_dim: Channels at the highest resolution; 96 is the released model's.
    """
    return import_diffusers().AutoencoderKLWan(
        base_dim=base_dim,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
    )


def load_vae(path: str | Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load a frozen Wan 2.1 VAE.

    Args:
        path: A safetensors file under Wan's own key names, such as wan_2.1_vae.safetensors, whose width is
            read from the weights; or a folder of diffusers' AutoencoderKLWan.
        dtype: Number format of the weights.

    Returns:
        The network, on the CPU.

    Raises:
        ValueError: There is no such file or folder, or it holds no Wan 2.1 VAE.
    """
    path = Path(path)
    if not path.is_dir():
        return _load_native(path, dtype)
    network = import_diffusers().AutoencoderKLWan
    vae = load_weights("diffusers", network, path, "a Wan VAE", torch_dtype=dtype)
    return vae.eval().requires_grad_(False)


def _load_native(path: Path, dtype: torch.dtype) -> nn.Module:
    import_diffusers()
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    tensors, _ = read_tensors(path, "a Wan VAE as a safetensors file")
    width, latents = (_first_size(tensors, name) for name in ("decoder.head.0.gamma", "conv2.weight"))
    if not 1 <= width <= MAX_BASE_DIM or not latents:
        raise ValueError(
            f"{shown(path)} is not a Wan VAE file: it has no decoder.head.0.gamma of its width; give "
            "wan_2.1_vae.safetensors"
        )
    if latents != LATENT_CHANNELS:
        raise ValueError(
            f"{shown(path)} is a VAE with {latents} latent channels; give the Wan 2.1 VAE, which has "
            f"{LATENT_CHANNELS}"
        )
    with torch.device("meta"):
        vae = build_vae(width)
    try:
        weights = {key: value.to(dtype) for key, value in convert_wan_vae_to_diffusers(tensors).items()}
    except (KeyError, IndexError, ValueError) as error:  # names that it does not know
        raise ValueError(
            f"{shown(path)} is not a Wan 2.1 VAE: it has {shown(error, 80)}, which is unknown; give another"
        ) from error
    assign_weights(vae, weights, path, "a Wan 2.1 VAE")
    return vae.eval().requires_grad_(False)


def _first_size(tensors: dict[str, Tensor], name: str) -> int:
    """Length of a tensor's first axis; 0 where it is not there."""
    return tensors[name].shape[0] if name in tensors and tensors[name].ndim else 0


def normalize(raw: Tensor) -> Tensor:
    """Raw latents [B, 16, T, h, w] -> the network's space: (raw - mean) / std."""
    return (raw - _per_channel(LATENTS_MEAN, raw)) / _per_channel(LATENTS_STD, raw)


def denormalize(latents: Tensor) -> Tensor:
    """Invert `normalize`."""
    return latents * _per_channel(LATENTS_STD, latents) + _per_channel(LATENTS_MEAN, latents)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


def encode_video(vae: nn.Module, video: Tensor) -> Tensor:
    """Encode entire clips at once: the callable that `vdot_core.vcu.encode` expects, over a small VAE.

    Args:
        vae: From `load_vae` or `build_vae`.
        video: [B, F, H, W, 3] float in [0, 1].

    Returns:
        [B, 16, T, h, w] float32 normalized latents.
    """
    return normalize(encode_moments(vae, rearrange(video, "b f h w c -> b c f h w") * 2 - 1)[0].float())


def decode_video(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode entire clips at once.

    Args:
        vae: From `load_vae` or `build_vae`.
        latents: [B, 16, T, h, w] float, normalized.

    Returns:
        [B, F, H, W, 3] float in [0, 1].
    """
    video = (decode_latents(vae, denormalize(latents)) + 1) / 2
    return rearrange(video.clamp(0, 1), "b c f h w -> b f h w c")
