"""VAEs to encode with: the real architecture with random weights, and a quick one that counts its calls."""

import pytest
import torch


class FoldingVae:
    """Has a Wan VAE's shapes and no weights: latents are pixels and means of their block."""

    def __init__(self):
        self.shapes = []

    def __call__(self, video):
        self.shapes.append(tuple(video.shape))
        first, rest = video[:, :1], video[:, 1:]
        batch, _, height, width, _ = video.shape
        groups = rest.reshape(batch, -1, 4, height, width, 3).mean(2)
        frames = torch.cat([first, groups], 1) * 2 - 1
        blocks = frames.reshape(batch, frames.shape[1], height // 8, 8, width // 8, 8, 3)
        corners = blocks[:, :, :, ::4, :, ::4].permute(0, 3, 5, 6, 1, 2, 4).flatten(1, 3)
        return torch.cat([corners, blocks.mean((3, 5)).permute(0, 4, 1, 2, 3), corners[:, :1]], 1)

    @property
    def num_calls(self):
        return len(self.shapes)


@pytest.fixture
def folding_vae():
    return FoldingVae()


@pytest.fixture(scope="session")
def wan_vae():
    """A small random AutoencoderKLWan, as diffusers builds it."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()


@pytest.fixture
def wan_encode(wan_vae):
    """`wan_vae` as vae_encode: video in 0..1 -> latents, normalized by the VAE's own mean and deviation."""
    mean = torch.tensor(wan_vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(wan_vae.config.latents_std).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def vae_encode(video):
        latents = wan_vae.encode(video.permute(0, 4, 1, 2, 3) * 2 - 1).latent_dist.mode()
        return (latents - mean) / std

    return vae_encode
