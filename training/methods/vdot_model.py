"""The networks of a distillation and their forward passes: rollout, scores and the discriminator's logits.

Letters: B batch, T latent frames (references included), h w latents, L tokens, D text width.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from vdot_core.distill import add_noise, predict_x0
from vdot_core.networks import reference_token_mask
from vdot_core.sampling import Schedule, guided, rollout, sample

from ..data.batch import Batch, doubled, with_references
from ..distributed.world import World
from ..engine.draws import Draws
from ..engine.method import pad_text
from ..engine.networks import check_text, features, velocity
from .vdot_config import DistillConfig, RolloutConfig
from .vdot_networks import build_networks


@dataclass(frozen=True)
class Scores:
    """Both scores' predictions of the clean latents at one noise level.

    Attributes:
        x: [B, 16, T, h, w] the noised sample, detached from the generator.
        timestep: [B] in 0..1000.
        fake: [B, 16, T, h, w] the fake score's; with a graph from `x` where that was asked for.
        real: [B, 16, T, h, w] the real score's, with guidance.
    """

    x: Tensor
    timestep: Tensor
    fake: Tensor
    real: Tensor


class VdotModel:
    """Generator, fake and real score, discriminator; `Vdot` adds the losses.

    Args:
        config: The run.
        world: The processes.
        empty_text: [1, L, D] embedding of the empty prompt.

    Raises:
        ValueError: A network's file is missing or does not fit.
    """

    def __init__(self, config: DistillConfig, world: World, empty_text: Tensor) -> None:
        self.config, self.world, self.empty_text = config, world, empty_text
        self.losses = config.losses
        built = build_networks(config, world)
        check_text(empty_text, built.sizes)
        self.sizes, self.taps = built.sizes, built.taps
        self.generator, self.fake_score, self.real_score = built.generator, built.fake_score, built.real_score
        self.discriminator = built.discriminator

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
        with torch.enable_grad() if through_fake else torch.no_grad():
            fake = predict_x0(x, velocity(self.fake_score, x, timestep, batch, self.world), timestep)
        return Scores(x, timestep, fake, self.real_prediction(x.detach(), timestep, batch))

    @torch.no_grad()
    def real_prediction(self, x: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """[B, 16, T, h, w] the real score's prediction of x0, with classifier-free guidance."""
        losses, length = self.losses, batch.text.shape[1]

        def real_score(x: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
            return velocity(self.real_score, x, timestep, batch, self.world)

        # The configuration decides, not this micro-batch's tasks: sharded processes must pass equally often.
        if not losses.guides:
            return predict_x0(x, real_score(x, timestep, batch), timestep)
        empty = pad_text(self.empty_text.to(batch.text), length)[:, :length].expand(len(x), -1, -1)
        without = dataclasses.replace(batch, text=empty)
        if losses.batch_guidance:
            both = real_score(torch.cat([x, x]), timestep.repeat(2), doubled(batch, without))
            conditional, unconditional = both.float().chunk(2)
        else:
            conditional, unconditional = (real_score(x, timestep, b).float() for b in (batch, without))
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
