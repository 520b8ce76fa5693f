"""Relativistic GAN losses on paired logits of real and generated latents."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..sampling import fresh_noise
from ..text import described

GAN_FORMS = ("softplus", "linear")


@dataclass(frozen=True)
class GanLosses:
    """Scalar losses of generator and discriminator; each is minimized by its own."""

    generator: Tensor
    discriminator: Tensor


def gan_losses(real_logits: Tensor, fake_logits: Tensor, *, form: str = "softplus") -> GanLosses:
    """Relativistic losses: each depends only on how much more real the real clip looks than the fake.

    'softplus' (Jolicoeur-Martineau, ICLR 2019; the released code): G softplus(-(D_fake - D_real)),
    D softplus(-(D_real - D_fake)). 'linear' (the paper's equation): G D_real - D_fake, D D_fake - D_real.

    Args:
        real_logits: [B] discriminator logits of real latents, noised like the fakes.
        fake_logits: [B] logits of generated latents; the caller detaches as needed.
        form: 'softplus' or 'linear'.

    Returns:
        Both losses, means over the batch, float32.

    Raises:
        ValueError: on logits of different shapes or an unknown form.
    """
    if real_logits.shape != fake_logits.shape:
        got = f"{tuple(real_logits.shape)} and {tuple(fake_logits.shape)}"
        raise ValueError(f"real and fake logits have shapes {got}; relativistic losses need pairs")
    margin = real_logits.float() - fake_logits.float()
    if form == "softplus":
        return GanLosses(F.softplus(margin).mean(), F.softplus(-margin).mean())
    if form == "linear":
        return GanLosses(margin.mean(), -margin.mean())
    raise ValueError(f"form is {described(form)}; expected one of {', '.join(GAN_FORMS)}")


def approximate_gradient_penalty(discriminate, latents: Tensor, logits: Tensor, sigma: float, generator=None):
    """R1 / R2 by finite differences: mean (D(x + sigma n) - D(x))^2, without second derivatives.

    Args:
        discriminate: callable, noised latents [B, C, T, h, w] -> logits [B].
        latents: [B, C, T, h, w] real (R1) or generated (R2) latents.
        logits: [B] discriminate(latents), already evaluated.
        sigma: standard deviation of the perturbation.
        generator: source of the perturbation, as `vdot_core.sampling.fresh_noise` takes it.

    Returns:
        Scalar penalty, to be weighted by the caller.
    """
    noise = fresh_noise(latents, generator).to(latents.dtype)
    return (discriminate(latents + sigma * noise) - logits).float().square().mean()
