"""Flow matching: x_t from data and noise, x0 from a velocity, timesteps of training, the loss."""

import torch
from torch import Tensor


def add_noise(x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """x_t = (1 - sigma) x0 + sigma noise, sigma = t / 1000, for any real t in 0..1000.

    Args:
        x0, noise: [B, C, T, h, w].
        timestep: [B].
    """
    sigma = (timestep.to(x0) / 1000).view(-1, *(1,) * (x0.ndim - 1))
    return (1 - sigma) * x0 + sigma * noise


def predict_x0(x: Tensor, velocity: Tensor, timestep: Tensor) -> Tensor:
    """x0 = x_t - sigma v, in float32."""
    sigma = (timestep.float() / 1000).view(-1, *(1,) * (x.ndim - 1))
    return x.float() - sigma * velocity.float()


def sample_timestep(batch: int, *, shift: float, low: float, high: float, generator=None) -> Tensor:
    """[B] timesteps: uniform, shifted by s -> s t / (1 + (s - 1) t), clamped to [low, high] of 1000."""
    uniform = torch.rand(batch, generator=generator)
    return (1000 * shift * uniform / (1 + (shift - 1) * uniform)).clamp(low, high)


def flow_matching_loss(velocity: Tensor, x0: Tensor, noise: Tensor, num_reference_latents: int = 0) -> Tensor:
    """mean || v - (noise - x0) ||^2 over the frames that are not references.

    Args:
        velocity: [B, C, T, h, w] the network's output at x_t.
        x0, noise: same shape, what x_t was mixed from.
        num_reference_latents: leading latent frames left out of the mean.

    Returns:
        Scalar float32 loss.
    """
    error = velocity.float() - (noise.float() - x0.float()).detach()
    return error[:, :, num_reference_latents:].square().mean()
