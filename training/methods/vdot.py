"""VDOT: distill a few-step generator by optimal transport, DMD and a GAN (arXiv 2512.06802).

A step updates the critic (fake score and discriminator) and, every `generator_every` steps, the generator.
Even steps match (generator: transport + DMD, fake score: flow matching), odd steps are adversarial:

    generator_matching   roll out -> x_t -> fake and real scores -> otd_weight g_OT + dmd_weight g_DMD -> loss
    generator_gan        roll out -> x_t of sample and real clip -> discriminator -> relativistic loss
    critic_matching      roll out -> x_t -> the fake score's flow matching loss on the sample
    critic_gan           roll out -> x_t of sample and real clip -> discriminator -> relativistic loss, R1, R2

Every loss is a mean over its samples, so that samples have equal weight in any split into micro-batches.
Letters: B batch, T latent frames (references included), h w latents, L tokens, D text width.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
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
    guided,
    matching_loss,
    otd_gradient,
    predict_x0,
    through_score,
)
from vdot_core.networks import reference_token_mask
from vdot_core.sampling import Schedule, rollout, sample

from ..data.batch import Batch, doubled, with_references
from ..distributed.world import World
from ..engine.draws import Draws
from ..engine.method import Losses, Update, pad_text
from ..engine.networks import check_text, features, velocity
from .loss_config import LossConfig
from .vdot_config import DistillConfig, RolloutConfig
from .vdot_networks import build_networks, check_networks


@dataclass(frozen=True)
class Scores:
    """Both scores' predictions of the clean latents at one noise level.

    Attributes:
        x: [B, 16, T, h, w] the noised sample, detached from the generator.
        timestep: [B] in 0..1000.
        fake: [B, 16, T, h, w] the fake score's; with a graph from `x` where that was asked for.
        real: [B, 16, T, h, w] the teacher's, with guidance.
    """

    x: Tensor
    timestep: Tensor
    fake: Tensor
    real: Tensor


def update_kinds(config: DistillConfig, step: int) -> tuple[str, ...]:
    """Names of a step's updates, in order: methods of `Vdot`."""
    kind = "gan" if config.losses.gan and step % 2 == 1 else "matching"
    every = config.optim.generator_every
    # With an even rate the generator's turns shift by one each time, so that half of them are adversarial.
    if step % every != (0 if every % 2 else step // every % 2):
        return (f"critic_{kind}",)
    matches = config.losses.dmd or config.losses.otd
    return (f"generator_{kind if matches else 'gan'}", f"critic_{kind}")


class Vdot:
    """The distillation as a method of the engine; see `training.engine.method.Method`.

    Args:
        config: The run.
        world: The processes.
        empty_text: [1, L, D] embedding of the empty prompt.

    Raises:
        ValueError: A network's file is missing or does not fit.
    """

    averaged = "generator"
    check = staticmethod(check_networks)

    def __init__(self, config: DistillConfig, world: World, empty_text: Tensor) -> None:
        self.config, self.world, self.empty_text = config, world, empty_text
        self.losses, optim = config.losses, config.optim
        built = build_networks(config, world)
        check_text(empty_text, built.sizes)
        self.sizes, self.taps, self.teacher = built.sizes, built.taps, built.teacher
        self.generator, self.fake_score = built.generator, built.fake_score
        self.discriminator = built.discriminator
        self.networks = {
            "generator": self.generator,
            "fake_score": self.fake_score,
            "discriminator": self.discriminator,
        }
        self.frozen = {"generator": config.model.frozen}
        self.needs_latents = config.losses.gan
        head_lr = optim.critic_lr if optim.discriminator_lr is None else optim.discriminator_lr
        self.players = {
            "generator": {"generator": optim.generator_lr},
            "critic": {"fake_score": optim.critic_lr, "discriminator": head_lr},
        }

    def text_drop(self, task: str) -> float:
        """Probability that a sample is trained without its caption."""
        return self.losses.text_drop

    def updates(self, step: int) -> list[Update]:
        """The updates of a step, the generator's first."""
        trained = {
            "generator_matching": ("generator",),
            "generator_gan": ("generator",),
            "critic_matching": ("fake_score", "discriminator"),
            "critic_gan": ("fake_score", "discriminator"),
        }
        if not self.losses.gan_trains_score:
            trained["critic_gan"] = ("discriminator",)
        return [
            Update(kind.partition("_")[0], trained[kind], getattr(self, kind))
            for kind in update_kinds(self.config, step)
        ]

    def generator_matching(self, batch: Batch, draws: Draws) -> Losses:
        """otd_weight L_OTD + dmd_weight L_DMD, from one evaluation of the scores or from one for each."""
        losses, count = self.losses, batch.num_reference_latents
        x0 = self.rollout(batch, draws, "generator", grad=True)
        total, metrics, scores = x0.new_zeros(()), {}, None
        if losses.otd:
            scores = self.scores(x0, batch, draws, "otd", through_fake=losses.otd_through == "xt")
            gradient = transport_gradient(x0, scores, losses, count)
            if losses.otd_through == "xt":
                gradient = through_score(gradient, scores.fake, scores.x, scores.timestep, count)
            loss = matching_loss(x0, gradient, count, losses.otd_reduction)
            total = total + losses.otd_weight * loss
            metrics = {"otd": loss.detach(), **transport_metrics(gradient, count)}
        if losses.dmd:
            if scores is None or not losses.shared_scores:
                scores = self.scores(x0, batch, draws, "dmd")
            gradient = dmd_gradient(
                x0.detach(),
                scores.fake,
                scores.real,
                timestep=scores.timestep,
                weighting=losses.dmd_weighting,
                num_reference_latents=count,
            )
            loss = matching_loss(x0, gradient, count)
            total = total + losses.dmd_weight * loss
            metrics |= {"dmd": loss.detach(), "dmd_gradient_rms": rms(gradient.gradient, count)}
        metrics["score_gap"] = (scores.fake - scores.real).detach()[:, :, count:].abs().mean()
        return Losses(total, {"matching": total.detach(), **metrics})

    def generator_gan(self, batch: Batch, draws: Draws) -> Losses:
        """The generator's relativistic loss: gradients pass through the critic to the sample."""
        x0 = self.rollout(batch, draws, "generator", grad=True)
        shared = self.losses.gan_shared_noise
        real, fake, timestep = self.noised_pair(x0, batch, draws, "generator gan", shared=shared)
        with torch.no_grad():
            real_logits = self.logits(real, timestep, batch)
        fake_logits = self.logits(fake, timestep, batch)
        pair = gan_losses(real_logits, fake_logits, form=self.losses.gan_form)
        loss = self.losses.gan_weight * pair.generator
        margin = (real_logits - fake_logits).detach().mean()
        return Losses(loss, {"gan": loss.detach(), "gan_margin": margin})

    def critic_matching(self, batch: Batch, draws: Draws) -> Losses:
        """The fake score's flow matching on fresh samples of the generator."""
        x0 = self.rollout(batch, draws, "critic", grad=False)
        timestep = self.timesteps(draws, "critic timestep", self.losses.score_shift)
        noise = draws.normal(batch.shape, "critic score noise", x0.device)
        x = add_noise(x0, noise, timestep)
        predicted = velocity(self.fake_score, x, timestep, batch, self.world)
        loss = flow_matching_loss(predicted, x0, noise, batch.num_reference_latents)
        return Losses(loss, {"denoising": loss.detach()})

    def critic_gan(self, batch: Batch, draws: Draws) -> Losses:
        """The discriminator's relativistic loss, and its gradient penalties where they have a weight."""
        losses = self.losses
        x0 = self.rollout(batch, draws, "critic", grad=False)
        real, fake, timestep = self.noised_pair(x0, batch, draws, "critic gan", shared=True)
        real_logits, fake_logits = (self.logits(x, timestep, batch) for x in (real, fake))
        pair = gan_losses(real_logits, fake_logits, form=losses.gan_form)
        loss = losses.gan_weight * pair.discriminator
        metrics = {
            "discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "discriminator_accuracy": (real_logits > fake_logits).float().mean(),
        }
        penalties = {"r1": (losses.r1, real, real_logits), "r2": (losses.r2, fake, fake_logits)}
        for name, (weight, x, logits) in penalties.items():
            if weight > 0:
                penalty = approximate_gradient_penalty(
                    lambda noised: self.logits(noised, timestep, batch),
                    x,
                    logits,
                    losses.penalty_sigma,
                    draws.noise_source(f"critic {name}"),
                )
                loss = loss + weight * penalty
                metrics[name] = penalty.detach()
        return Losses(loss, metrics)

    def rollout(self, batch: Batch, draws: Draws, purpose: str, *, grad: bool) -> Tensor:
        """Roll the generator out to a random exit step, the same on all processes (backward simulation).

        Args:
            batch, draws: Of the step.
            purpose: Key of this rollout's draws.
            grad: Keep the exit step's graph; the earlier steps never have one.

        Returns:
            [B, 16, T, h, w] float32 clean latents, with the given references in their frames.
        """
        schedule = rollout_schedule(self.config.rollout)
        exit_step = draws.shared_integer(schedule.num_steps, f"{purpose} exit")
        noise = draws.normal(batch.shape, f"{purpose} noise", self.world.device)
        fresh = draws.noise_source(f"{purpose} fresh noise")
        with nullcontext() if grad else torch.no_grad():
            step = rollout(self._student(batch), noise, schedule, exit_step, "renoise", fresh)
            return with_references(step.x0, batch)

    def scores(
        self, x0: Tensor, batch: Batch, draws: Draws, loss: str, *, through_fake: bool = False
    ) -> Scores:
        """Noise a sample and ask both scores for the clean latents: three forward passes.

        Args:
            x0: [B, 16, T, h, w] the generator's sample.
            batch, draws: Of the step.
            loss: otd or dmd; they have separate draws unless `losses.shared_scores`.
            through_fake: Keep the fake score's graph from the noised sample.

        Returns:
            The predictions.
        """
        purpose = "generator scores" if self.losses.shared_scores else f"generator scores {loss}"
        timestep = self.timesteps(draws, f"{purpose} timestep", self.losses.score_shift)
        noise = draws.normal(batch.shape, f"{purpose} noise", x0.device)
        x = add_noise(x0.detach(), noise, timestep).requires_grad_(through_fake)
        with nullcontext() if through_fake else torch.no_grad():
            fake = predict_x0(x, velocity(self.fake_score, x, timestep, batch, self.world), timestep)
        return Scores(x, timestep, fake, self.real_prediction(x.detach(), timestep, batch))

    @torch.no_grad()
    def real_prediction(self, x: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """[B, 16, T, h, w] the teacher's prediction of the clean latents, with classifier-free guidance."""
        losses, length = self.losses, batch.text.shape[1]

        def teacher(x: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
            return velocity(self.teacher, x, timestep, batch, self.world)

        # The configuration decides, not this micro-batch's tasks: sharded processes must pass equally often.
        if not losses.guides:
            return predict_x0(x, teacher(x, timestep, batch), timestep)
        empty = pad_text(self.empty_text.to(batch.text), length)[:, :length].expand(len(x), -1, -1)
        without = dataclasses.replace(batch, text=empty)
        if losses.batch_guidance:
            both = teacher(torch.cat([x, x]), timestep.repeat(2), doubled(batch, without))
            conditional, unconditional = both.float().chunk(2)
        else:
            conditional, unconditional = (teacher(x, timestep, b).float() for b in (batch, without))
        scales = [losses.task_guidance.get(task, losses.guidance) for task in batch.tasks]
        scale = torch.tensor(scales, device=x.device).view(-1, 1, 1, 1, 1)
        return predict_x0(x, guided(conditional, unconditional, scale), timestep)

    def noised_pair(
        self, x0: Tensor, batch: Batch, draws: Draws, purpose: str, *, shared: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Real latents and sample at one noise level, by the same noise if `shared`; and the timestep [B]."""
        if batch.latents is None:
            raise ValueError(
                f"no real latents for {batch.ids}, and the GAN needs them: add clips, or set losses.gan false"
            )
        timestep = self.timesteps(draws, f"{purpose} timestep", self.losses.gan_shift)
        noise = draws.normal(batch.shape, f"{purpose} noise", x0.device)
        other = noise if shared else draws.normal(batch.shape, f"{purpose} noise of the sample", x0.device)
        return add_noise(batch.latents.float(), noise, timestep), add_noise(x0, other, timestep), timestep

    def logits(self, x: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """[B] the discriminator's logits of noised latents, reference frames left out."""
        tokens, time = features(self.fake_score, x, timestep, batch, self.world, self.taps)
        mask = None
        if batch.num_reference_latents:
            mask = reference_token_mask(
                batch.shape, batch.num_reference_latents, self.sizes.patch_size, device=x.device
            )
        return self.discriminator([tap.float() for tap in tokens], time.float(), mask)

    def timesteps(self, draws: Draws, purpose: str, shift: float) -> Tensor:
        """[B] timesteps within the limits of the losses."""
        low, high = self.losses.min_timestep, self.losses.max_timestep
        return draws.timesteps(purpose, shift=shift, low=low, high=high, device=self.world.device)

    @torch.no_grad()
    def sample(self, batch: Batch, draws: Draws) -> Tensor:
        """[B, 16, T, h, w] latents by the full schedule, as in training's rollouts."""
        noise = draws.normal(batch.shape, "preview", self.world.device)
        schedule, fresh = rollout_schedule(self.config.rollout), draws.noise_source("preview fresh")
        return sample(self._student(batch), noise, schedule, "renoise", fresh)

    def metadata(self) -> dict[str, str]:
        """Metadata of the exported generator."""
        return export_metadata(self.config)

    def _student(self, batch: Batch):
        """velocity(x, timestep) of the generator, as `vdot_core.sampling` calls it."""

        def student(x: Tensor, timestep: Tensor) -> Tensor:
            return velocity(self.generator, x, timestep, batch, self.world)

        return student


def rollout_schedule(config: RolloutConfig) -> Schedule:
    """Noise levels and labels of the generator's rollout; they differ in the recipe `released`."""
    levels = Schedule.shifted(config.steps, config.noise_shift, labels="exact")
    labels = Schedule.shifted(config.steps, config.shift, labels="exact")
    return Schedule(levels.sigmas, labels.timesteps)


def export_metadata(config: DistillConfig) -> dict[str, str]:
    """Metadata of a run's exported generator."""
    return {
        "trained_by": "training/distill.py",
        "stage": str(config.stage),
        "recipe": config.recipe,
        "schedule": f"{config.rollout.steps} steps, shift {config.rollout.shift:g}, renoise",
    }


def transport_gradient(x0: Tensor, scores: Scores, losses: LossConfig, count: int) -> MatchingGradient:
    """g_OT [B, 16, T, h, w] w.r.t. the fake prediction, zero on `count` reference frames."""
    return otd_gradient(
        x0.detach(),
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
        num_reference_latents=count,
    )


def transport_metrics(gradient: MatchingGradient, count: int) -> dict[str, Tensor]:
    """Diagnostics of a transport for the log."""
    metrics, result = {"otd_gradient_rms": rms(gradient.gradient, count)}, gradient.transport
    if result is not None:
        metrics |= {
            "transport_error": result.marginal_error.mean(),
            "transport_iterations": result.num_iter.float().mean(),
            "transport_converged": result.converged.float().mean(),
            "transport_eps": result.eps.mean(),
        }
    return {name: value.to(gradient.gradient.device) for name, value in metrics.items()}


def rms(gradient: Tensor, count: int) -> Tensor:
    """Root mean square of each sample's gradient, reference frames left out, averaged over samples."""
    return gradient[:, :, count:].square().mean((1, 2, 3, 4)).sqrt().mean()
