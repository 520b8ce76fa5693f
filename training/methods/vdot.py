"""The losses of one micro-batch: the generator's and the critic's, matching and adversarial.

Even steps match (the generator by transport and DMD, the critic by flow matching); odd steps are adversarial.
Each function returns a mean over its samples, so that samples count alike however they are split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vdot_core.distill import (
    MatchingGradient,
    add_noise,
    approximate_gradient_penalty,
    dmd_gradient,
    flow_matching_loss,
    gan_losses,
    matching_loss,
    otd_gradient,
    through_score,
)
from vdot_core.networks import reference_token_mask

from ..data.batch import Batch
from ..engine.config import DistillConfig
from ..engine.draws import Draws
from ..engine.networks import Networks
from .loss_config import LossConfig
from .scores import Scores, evaluate_scores, generate, prepared


@dataclass(frozen=True)
class Losses:
    """What is minimised, and numbers for the log.

    Attributes:
        total: Scalar with a graph.
        metrics: Name -> scalar tensor, each a mean over the samples.
    """

    total: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class StepContext:
    """What every loss of a step is given.

    Attributes:
        networks: All networks.
        config: The run.
        empty_text: [1, L, D] the condition without a caption.
        step: The training step.
    """

    networks: Networks
    config: DistillConfig
    empty_text: Tensor
    step: int

    def ready(self, batch: Batch) -> tuple[Batch, Draws]:
        """The batch on its device, and its draws."""
        draws = Draws(self.config.seed, self.step, batch.positions)
        drop = self.config.losses.text_drop
        return prepared(batch, self.networks, self.empty_text, draws, drop), draws


Loss = Callable[[StepContext, Batch], Losses]


def is_adversarial(config: DistillConfig, step: int) -> bool:
    """Whether a step's losses are the adversarial ones."""
    return config.losses.gan and step % 2 == 1


def updates_generator(config: DistillConfig, step: int) -> bool:
    """Whether a step updates the generator too."""
    every = config.optim.generator_every
    # At an even rate the turns move by one each time, so that odd, adversarial steps have theirs.
    turn = 0 if every % 2 else step // every % 2
    return step % every == turn


def losses_of(config: DistillConfig, step: int) -> tuple[Loss | None, Loss]:
    """The generator's loss of a step (None: it is not updated) and the critic's."""
    adversarial = is_adversarial(config, step)
    matching = config.losses.dmd or config.losses.otd
    generator: Loss | None = None
    if updates_generator(config, step):
        generator = generator_gan_loss if adversarial or not matching else generator_matching_loss
    return generator, critic_gan_loss if adversarial else critic_matching_loss


def generator_matching_loss(context: StepContext, batch: Batch) -> Losses:
    """otd_weight L_OTD + dmd_weight L_DMD, from one evaluation of the scores or from one for each."""
    networks, config, losses = context.networks, context.config, context.config.losses
    batch, draws = context.ready(batch)
    sample = generate(networks, config, batch, draws, "generator", grad=True)
    through = losses.otd and losses.otd_through == "xt"

    def scores(name: str, through_fake: bool) -> Scores:
        purpose = "generator scores" if losses.shared_scores else f"generator scores {name}"
        given = (networks, config, batch, sample, context.empty_text, draws, purpose)
        return evaluate_scores(*given, through_fake=through_fake)

    total, metrics, found = sample.new_zeros(()), {}, None
    count = batch.num_reference_latents
    if losses.otd:
        found = scores("otd", through)
        loss, metrics = _transport_loss(losses, sample, found, count)
        total = total + losses.otd_weight * loss
    if losses.dmd:
        found = found if found is not None and losses.shared_scores else scores("dmd", False)
        gradient = dmd_gradient(
            sample.detach(),
            found.fake,
            found.real,
            timestep=found.timestep,
            weighting=losses.dmd_weighting,
            num_reference_latents=count,
        )
        loss = matching_loss(sample, gradient, count)
        total = total + losses.dmd_weight * loss
        metrics |= {"dmd": loss.detach(), "dmd_gradient_rms": _rms(gradient.gradient, count)}
    metrics["score_gap"] = (found.fake - found.real).detach()[:, :, count:].abs().mean()
    return Losses(total, {"matching": total.detach(), **metrics})


def _rms(gradient: Tensor, count: int) -> Tensor:
    """Root mean square of each sample, averaged: the same however samples are split."""
    return gradient[:, :, count:].square().mean((1, 2, 3, 4)).sqrt().mean()


def _transport_loss(
    losses: LossConfig, sample: Tensor, scores: Scores, count: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_OTD and its diagnostics."""
    gradient = transport_gradient(losses, sample.detach(), scores, count)
    if losses.otd_through == "xt":
        gradient = through_score(gradient, scores.fake, scores.x, scores.timestep, count)
    loss = matching_loss(sample, gradient, count, losses.otd_reduction)
    metrics = {"otd": loss.detach(), "otd_gradient_rms": _rms(gradient.gradient, count)}
    if (result := gradient.transport) is not None:
        metrics["transport_error"] = result.marginal_error.mean()
        metrics["transport_iterations"] = result.num_iter.float().mean()
        metrics["transport_converged"] = result.converged.float().mean()
        metrics["transport_eps"] = result.eps.mean()
    return loss, metrics


def transport_gradient(
    losses: LossConfig, sample: Tensor, scores: Scores, num_reference_latents: int
) -> MatchingGradient:
    """The transport's gradient w.r.t. the fake prediction, with the configuration's options."""
    return otd_gradient(
        sample,
        scores.fake,
        scores.real,
        method=losses.otd_gradient,
        eps=losses.eps,
        eps_mode=losses.eps_mode,
        cost=losses.cost,
        debias=losses.debias,
        rho_fake=losses.rho_fake,
        rho_real=losses.rho_real,
        tol=losses.tol,
        max_iter=losses.iterations,
        pool=losses.otd_pool,
        scale=losses.otd_scale,
        num_reference_latents=num_reference_latents,
    )


def _logits(context: StepContext, batch: Batch, x: Tensor, timestep: Tensor) -> Tensor:
    """[B] the discriminator's logits of noised latents, references left out."""
    networks = context.networks
    features, time = networks.velocity(networks.fake_score, x, timestep, batch, features=True)
    given = (batch.shape, batch.num_reference_latents, networks.config.patch_size)
    mask = reference_token_mask(*given, device=x.device) if batch.num_reference_latents else None
    return networks.discriminator([one.float() for one in features], time.float(), mask)


def _noised_pair(
    context: StepContext, batch: Batch, sample: Tensor, draws: Draws, purpose: str, shared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(real latents, sample, timestep [B]), both noised to it."""
    if batch.latents is None:
        raise ValueError(
            f"no real latents for {batch.ids}; the GAN needs real clips: give them, or set losses.gan false"
        )
    losses, device = context.config.losses, sample.device
    limits = {"low": losses.min_timestep, "high": losses.max_timestep}
    timestep = draws.timesteps(f"{purpose} timestep", shift=losses.gan_shift, **limits, device=device)
    noise = draws.normal(batch.shape, f"{purpose} noise", device)
    other = noise if shared else draws.normal(batch.shape, f"{purpose} noise of the sample", device)
    return add_noise(batch.latents.float(), noise, timestep), add_noise(sample, other, timestep), timestep


def generator_gan_loss(context: StepContext, batch: Batch) -> Losses:
    """The generator's relativistic loss: gradients pass through the critic to the sample."""
    losses = context.config.losses
    batch, draws = context.ready(batch)
    sample = generate(context.networks, context.config, batch, draws, "generator", grad=True)
    shared = losses.gan_shared_noise
    real, fake, timestep = _noised_pair(context, batch, sample, draws, "generator gan", shared)
    with torch.no_grad():
        real_logits = _logits(context, batch, real, timestep)
    fake_logits = _logits(context, batch, fake, timestep)
    loss = losses.gan_weight * gan_losses(real_logits, fake_logits, form=losses.gan_form).generator
    return Losses(loss, {"gan": loss.detach(), "gan_margin": (real_logits - fake_logits).detach().mean()})


def critic_matching_loss(context: StepContext, batch: Batch) -> Losses:
    """The fake score's flow matching on fresh samples of the generator."""
    networks, config, losses = context.networks, context.config, context.config.losses
    batch, draws = context.ready(batch)
    sample = generate(networks, config, batch, draws, "critic", grad=False)
    limits = {"low": losses.min_timestep, "high": losses.max_timestep}
    device = sample.device
    timestep = draws.timesteps("critic timestep", shift=losses.score_shift, **limits, device=device)
    noise = draws.normal(batch.shape, "critic score noise", device)
    x = add_noise(sample, noise, timestep)
    velocity = networks.velocity(networks.fake_score, x, timestep, batch)
    loss = flow_matching_loss(velocity, sample, noise, batch.num_reference_latents)
    return Losses(loss, {"denoising": loss.detach()})


def critic_gan_loss(context: StepContext, batch: Batch) -> Losses:
    """The discriminator's relativistic loss, and its penalties where they have a weight."""
    losses = context.config.losses
    batch, draws = context.ready(batch)
    sample = generate(context.networks, context.config, batch, draws, "critic", grad=False)
    real, fake, timestep = _noised_pair(context, batch, sample, draws, "critic gan", True)

    def discriminate(x: Tensor) -> Tensor:
        return _logits(context, batch, x, timestep)

    real_logits, fake_logits = discriminate(real), discriminate(fake)
    loss = losses.gan_weight * gan_losses(real_logits, fake_logits, form=losses.gan_form).discriminator
    metrics = {
        "discriminator": loss.detach(),
        "real_logit": real_logits.detach().mean(),
        "fake_logit": fake_logits.detach().mean(),
        "discriminator_accuracy": (real_logits > fake_logits).float().mean(),
    }
    for name, weight, x, logits in (
        ("r1", losses.r1, real, real_logits),
        ("r2", losses.r2, fake, fake_logits),
    ):
        if weight > 0:
            noise = draws.noise_source(f"critic {name}")
            penalty = approximate_gradient_penalty(discriminate, x, logits, losses.penalty_sigma, noise)
            loss = loss + weight * penalty
            metrics[name] = penalty.detach()
    return Losses(loss, metrics)
