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
from collections.abc import Hashable

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

from ..data.batch import Batch
from ..distributed.world import World
from ..engine.adapters import AdaptedFrom
from ..engine.draws import Draws
from ..engine.method import Losses, Update
from ..engine.networks import velocity
from ..engine.space import OutputBytes
from .loss_config import LossConfig
from .vdot_checks import check_networks
from .vdot_config import DistillConfig, update_kinds
from .vdot_model import Scores, VdotModel
from .vdot_networks import adapted_from


class Vdot(VdotModel):
    """The distillation as a method of the engine: losses, and the networks that each of them trains.

    Its members are those of `training.engine.method.Method`; arguments and errors are `VdotModel`'s.
    """

    averaged = "generator"
    check = staticmethod(check_networks)

    def __init__(self, config: DistillConfig, world: World, empty_text: Tensor) -> None:
        super().__init__(config, world, empty_text)
        optim = config.optim
        self.networks = {
            "generator": self.generator,
            "fake_score": self.fake_score,
            "discriminator": self.discriminator,
        }
        self.frozen = {"generator": config.model.frozen}
        self.needs_latents = config.losses.gan
        self._costs: dict[Hashable, dict[str, float]] = {}
        head_lr = optim.critic_lr if optim.discriminator_lr is None else optim.discriminator_lr
        self.learning_rates = {
            "generator": {"generator": optim.generator_lr},
            "critic": {"fake_score": optim.critic_lr, "discriminator": head_lr},
        }

    @staticmethod
    def output_bytes(config: DistillConfig) -> OutputBytes:
        """Sizes of the files that a run writes, from the configuration alone."""
        from ..planning.outputs import output_bytes

        return output_bytes(config)

    def text_drop(self, task: str) -> float:
        """Probability that a sample is trained without its caption."""
        return self.losses.text_drop

    def updates(self, step: int) -> list[Update]:
        """The updates of a step, the generator's first."""
        return [self._update(kind) for kind in update_kinds(self.config, step)]

    def kinds_of_updates(self) -> list[Update]:
        """Every kind of update of the cycle."""
        cycle = range(2 * self.config.optim.generator_every)
        kinds = dict.fromkeys(kind for step in cycle for kind in update_kinds(self.config, step))
        return [self._update(kind) for kind in kinds]

    def _update(self, kind: str) -> Update:
        trained = {
            "generator_matching": ("generator",),
            "generator_gan": ("generator",),
            "critic_matching": ("fake_score", "discriminator"),
            "critic_gan": ("fake_score", "discriminator"),
        }
        if not self.losses.gan_trains_score:
            trained["critic_gan"] = ("discriminator",)
        return Update(kind.partition("_")[0], trained[kind], getattr(self, kind))

    def operations(self, step: int, batch: Batch) -> float:
        """Floating-point operations of a step on a micro-batch, rollouts counted at their mean length."""
        from ..planning.phases import costs_of
        from ..planning.workload import Workload

        work = Workload.of_batch(self.sizes, batch)
        if work not in self._costs:
            parallel = dataclasses.replace(self.config.parallel, checkpoint_every=0)
            config = dataclasses.replace(self.config, parallel=parallel)
            self._costs[work] = {
                kind: cost.flops for kind, cost in costs_of(self.sizes, work, config).items()
            }
        return len(batch) * sum(self._costs[work][kind] for kind in update_kinds(self.config, step))

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

    def metadata(self) -> dict[str, str]:
        """Metadata of the exported generator."""
        return export_metadata(self.config)

    def adapted_from(self) -> AdaptedFrom | None:
        """The teacher, if the generator is an adapter."""
        return adapted_from(self.config)


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
