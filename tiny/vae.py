"""The tiny Wan VAE: building, initialising, fast training passes, latent statistics and file keys.

The network is diffusers' `AutoencoderKLWan`, whose own passes feed a clip in chunks through caches. Training
runs the same weights over the whole sequence at once, which gives the same numbers faster: every temporal
down- or upsampling hands frame 0 through and applies its time convolution to the rest.

Letters: B batch, C channels, F pixel frames, T latent frames, H W pixels, h w latents.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def build_vae(base_dim: int) -> nn.Module:
    """A Wan 2.1 VAE of the given width, on the CPU in float32.

    Args:
        base_dim: Channels of the widest resolution; 96 is the released model's, 8 to 16 are tiny.
    """
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=base_dim,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
    )


@torch.no_grad()
def initialize_vae(vae: nn.Module, generator: torch.Generator) -> None:
    """Initialise in place so that the network is a sound image autoencoder over time from the first step.

    Default initialisation mixes frames at random and lets the residual stream grow: training then needs many
    times the steps. Here a temporal convolution starts on its newest tap alone and blocks start small.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        weight = module.weight
        fan_in = weight[0, :, -1].numel() if weight.dim() == 5 else weight[0].numel()
        weight.zero_()
        newest = weight[:, :, -1] if weight.dim() == 5 else weight
        newest.copy_(torch.randn(newest.shape, generator=generator) / math.sqrt(fan_in))
        module.bias.zero_()
        if name.endswith("conv_in"):
            module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
        elif name.endswith("conv2"):
            weight.mul_(0.2)
        elif name.endswith("proj"):
            weight.mul_(0.2)
        elif name == "decoder.conv_out":
            weight.mul_(0.5)
        elif name.endswith("time_conv"):
            identity = torch.eye(weight.shape[1]).repeat(weight.shape[0] // weight.shape[1], 1)
            weight.zero_()
            weight[:, :, -1, 0, 0] = identity
        elif name.endswith("conv_shortcut"):
            newest.copy_(_projection(weight.shape[0], weight.shape[1], generator)[..., None, None])
        elif name.endswith("resample.1"):
            weight.copy_(_resampling(weight.shape, name.startswith("encoder"), generator))
    quant = vae.quant_conv
    quant.weight[LATENT_CHANNELS:] *= 0.1
    quant.bias[LATENT_CHANNELS:] = -6.0


def _projection(num_out: int, num_in: int, generator: torch.Generator) -> Tensor:
    """[num_out, num_in] random map that keeps lengths: orthonormal rows or columns."""
    wide = torch.randn(max(num_out, num_in), min(num_out, num_in), generator=generator)
    basis = torch.linalg.qr(wide)[0]
    return basis if num_out >= num_in else basis.T * math.sqrt(num_in / num_out)


def _resampling(shape: torch.Size, down: bool, generator: torch.Generator) -> Tensor:
    """A 3x3 kernel that loses little: it projects each 2x2 block going down, the nearest pixel going up."""
    num_out, num_in = shape[:2]
    weight = torch.zeros(shape)
    if down:
        weight[:, :, :2, :2] = 0.8 * _projection(num_out, 4 * num_in, generator).reshape(
            num_out, num_in, 2, 2
        )
        return weight
    weight += 0.3 / math.sqrt(9 * num_in) * torch.randn(shape, generator=generator)
    weight[:, :, 1, 1] += _projection(num_out, num_in, generator)
    return weight


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """The network's RMS norm over channels, without a division per element."""
    inverse = torch.rsqrt(x.square().sum(1, keepdim=True, dtype=torch.float32) + 1e-12) * norm.scale
    return x * inverse.to(x.dtype) * norm.gamma.to(x.dtype)


def _causal(conv: nn.Module, x: Tensor) -> Tensor:
    """A causal 3D convolution over a whole clip; one frame needs the newest tap only."""
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


def _per_frame(module: nn.Module, x: Tensor) -> Tensor:
    batch, _, frames = x.shape[:3]
    y = module(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (batch, frames)).transpose(1, 2)


def _resample(block: nn.Module, x: Tensor) -> Tensor:
    if block.mode == "upsample3d" and x.shape[2] > 1:
        rest = _causal(block.time_conv, x[:, :, 1:])
        batch, channels, frames, height, width = x[:, :, 1:].shape
        rest = rest.reshape(batch, 2, channels, frames, height, width).transpose(2, 3).transpose(1, 2)
        rest = rest.reshape(batch, 2 * frames, channels, height, width).transpose(1, 2)
        x = torch.cat([x[:, :, :1], rest], dim=2)
    x = _per_frame(block.resample, x)
    if block.mode == "downsample3d" and x.shape[2] > 1:
        conv = block.time_conv
        rest = F.conv3d(x, conv.weight, conv.bias, stride=conv.stride)
        x = torch.cat([x[:, :, :1], rest], dim=2)
    return x


def _mid(block: nn.Module, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    attention = block.attentions[0]
    h = _norm(attention.norm, x.transpose(1, 2).flatten(0, 1))
    q, k, v = attention.to_qkv(h).flatten(2).transpose(1, 2).chunk(3, dim=-1)
    h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    h = attention.proj(h.transpose(1, 2).unflatten(2, x.shape[3:]).contiguous())
    x = x + h.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    return _residual(block.resnets[1], x)


def encode_moments(vae: nn.Module, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode whole clips at once.

    Args:
        vae: From `build_vae`.
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
    """Decode whole clips at once: [B, 16, T, h, w] raw latents -> [B, 3, F, H, W], not clamped."""
    decoder = vae.decoder
    x = _causal(decoder.conv_in, _causal(vae.post_quant_conv, latents))
    x = _mid(decoder.mid_block, x)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = _residual(resnet, x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    return _causal(decoder.conv_out, F.silu(_norm(decoder.norm_out, x)))


def _channelwise(values, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


def encode_video(vae: nn.Module, video: Tensor) -> Tensor:
    """The callable `vdot_core.vcu.encode` expects, over our VAE.

    Args:
        vae: From `build_vae` or `load_vae`.
        video: [B, F, H, W, 3] float in [0, 1].

    Returns:
        [B, 16, T, h, w] latents in the network's normalised space: (raw - mean) / std.
    """
    mean = encode_moments(vae, video.movedim(-1, 1) * 2 - 1)[0].float()
    return (mean - _channelwise(LATENTS_MEAN, mean)) / _channelwise(LATENTS_STD, mean)


def decode_video(vae: nn.Module, latents: Tensor) -> Tensor:
    """The inverse: [B, 16, T, h, w] normalised latents -> [B, F, H, W, 3] in [0, 1]."""
    raw = latents * _channelwise(LATENTS_STD, latents) + _channelwise(LATENTS_MEAN, latents)
    return ((decode_latents(vae, raw) + 1) / 2).clamp(0, 1).movedim(1, -1)


@torch.no_grad()
def fold_statistics(vae: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Rescale the latents in place so that theirs are Wan's published statistics; decoding is unchanged.

    Args:
        vae: The network; its latents' statistics are measured by the caller.
        mean, std: [16] float, of the raw latents as they are now.
    """
    scale = torch.tensor(LATENTS_STD) / std
    shift = torch.tensor(LATENTS_MEAN) - mean * scale
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:LATENT_CHANNELS] *= scale.view(-1, 1, 1, 1, 1)
    quant.bias[:LATENT_CHANNELS] = quant.bias[:LATENT_CHANNELS] * scale + shift
    quant.bias[LATENT_CHANNELS:] += 2 * scale.log()
    post.weight /= scale.view(1, -1, 1, 1, 1)
    post.bias -= (post.weight[:, :, 0, 0, 0] * shift).sum(1)


def _wan_key(key: str) -> str:
    """diffusers' parameter name -> the original Wan VAE's."""
    parts = key.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return f"{'conv1' if parts[0] == 'quant_conv' else 'conv2'}.{parts[1]}"
    side, rest = parts[0], parts[1:]
    inner = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    if rest[0] in ("conv_in", "norm_out", "conv_out"):
        return (
            f"{side}.{ {'conv_in': 'conv1', 'norm_out': 'head.0', 'conv_out': 'head.2'}[rest[0]] }.{rest[1]}"
        )
    if rest[0] == "mid_block":
        index = "1" if rest[1] == "attentions" else str(2 * int(rest[2]))
        head, tail = f"{side}.middle.{index}", rest[3:]
    elif rest[0] == "down_blocks":
        head, tail = f"{side}.downsamples.{rest[1]}", rest[2:]
    else:
        slot = 3 if rest[2] == "upsamplers" else int(rest[3])
        head, tail = f"{side}.upsamples.{4 * int(rest[1]) + slot}", rest[4:]
    first = inner.get(tail[0], "shortcut" if tail[0] == "conv_shortcut" else tail[0])
    return ".".join([head, first, *tail[1:]])


def vae_config(vae: nn.Module) -> dict:
    """The keys of diffusers' `AutoencoderKLWan`, as its config.json has them."""
    config = json.loads(vae.to_json_string())
    config.pop("_diffusers_version", None)
    return config


def save_vae(vae: nn.Module, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights under Wan's own names, as ComfyUI reads them, with `vae_config` as "config"."""
    from training.engine.files import save_safetensors

    tensors = {_wan_key(key): value for key, value in vae.state_dict().items()}
    save_safetensors(tensors, path, {"config": json.dumps(vae_config(vae)), **(metadata or {})})


def weights_digest(path: str | Path) -> str:
    """SHA-256 of a safetensors file's tensors: names, types, shapes and values, whatever else is in it."""
    total = hashlib.sha256()
    for name, tensor in sorted(_read_tensors(path).items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _read_tensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give a Wan VAE as a safetensors file") from error


def load_vae(path: str | Path) -> nn.Module:
    """Read a file written by `save_vae`; the width is taken from the weights."""
    tensors = _read_tensors(path)
    if "decoder.head.0.gamma" not in tensors:
        raise ValueError(f"{path} is not a Wan VAE file: it has no decoder.head.0.gamma")
    vae = build_vae(tensors["decoder.head.0.gamma"].shape[0])
    vae.load_state_dict({key: tensors[_wan_key(key)] for key in vae.state_dict()})
    return vae.eval().requires_grad_(False)
