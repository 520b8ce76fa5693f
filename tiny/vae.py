"""The tiny Wan VAE's training side: first weights, latent statistics, and its file under Wan's key names."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from training.data.wan_vae import LATENTS_MEAN, LATENTS_STD
from vdot_core.checkpoints import read_tensors
from vdot_core.vcu import LATENT_CHANNELS


@torch.no_grad()
def initialize_vae(vae: nn.Module, generator: torch.Generator) -> None:
    """Initialize in place so that the network is a working image autoencoder over time from the first step.

    Default initialization mixes frames at random and lets the residual stream grow: training then needs many
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
        block = 0.8 * _projection(num_out, 4 * num_in, generator)
        weight[:, :, :2, :2] = rearrange(block, "o (i h w) -> o i h w", h=2, w=2)
        return weight
    weight += 0.3 / math.sqrt(9 * num_in) * torch.randn(shape, generator=generator)
    weight[:, :, 1, 1] += _projection(num_out, num_in, generator)
    return weight


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
    """SHA-256 of a safetensors file's tensors: names, types, shapes and values, without metadata."""
    total = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path)[0].items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
