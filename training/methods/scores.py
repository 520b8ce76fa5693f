"""What the generator's and the critic's losses are made from: rollouts, noised latents, the two scores.

Letters: B batch, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vdot_core.distill import add_noise, guided, predict_x0
from vdot_core.sampling import Schedule, rollout

from ..data.batch import Batch
from ..engine.config import DistillConfig, RolloutConfig
from ..engine.draws import Draws
from ..engine.networks import Networks


@dataclass(frozen=True)
class Scores:
    """Both scores' predictions of the clean latents at one noise level.

    Attributes:
        x: [B, 16, T, h, w] the noised sample, detached from the generator.
        timestep: [B].
        fake: [B, 16, T, h, w] the fake score's; with a graph from `x` where that was asked for.
        real: [B, 16, T, h, w] the teacher's, with guidance.
    """

    x: Tensor
    timestep: Tensor
    fake: Tensor
    real: Tensor


def rollout_schedule(config: RolloutConfig) -> Schedule:
    """Levels and labels of the generator's rollout; the release has them differ."""
    levels = Schedule.shifted(config.steps, config.noise_shift, labels="exact")
    labels = Schedule.shifted(config.steps, config.shift, labels="exact")
    return Schedule(levels.sigmas, labels.timesteps)


def references(batch: Batch) -> Tensor | None:
    """[B, 16, R, h, w] the clean latents of the reference frames; None where there are none."""
    count = batch.num_reference_latents
    if not count:
        return None
    if batch.latents is not None:
        return batch.latents[:, :, :count].float()
    # A context brings an image in its first 16 channels, with mask 0; the others are grey there, with mask 1.
    brought = 1 - batch.contexts[:, :, 32:33, :count].float()
    return (batch.contexts[:, :, :16, :count] * brought).sum(1) / brought.sum(1)


def with_references(sample: Tensor, batch: Batch) -> Tensor:
    """A sample whose reference frames are the given images.

    Scores and discriminator then see the same references in generated and in real latents, noised alike;
    what the generator itself made of those frames is cut off after sampling and is no part of any loss.
    """
    images = references(batch)
    if images is None:
        return sample
    return torch.cat([images.to(sample), sample[:, :, batch.num_reference_latents :]], dim=2)


def prepared(batch: Batch, networks: Networks, empty_text: Tensor, draws: Draws, text_drop: float) -> Batch:
    """Move a batch to the device, its text zero-padded to the network's length and dropped by chance.

    Args:
        batch: From the source.
        networks: For whom.
        empty_text: [1, L, D] the condition without a caption.
        draws: Of this micro-batch.
        text_drop: Chance that a sample loses its caption.
    """
    device = networks.world.device
    batch = batch.to(device)
    text = padded_text(batch.text, networks.config.text_len)
    if text_drop > 0:
        dropped = (draws.uniform("text drop", device) < text_drop)[:, None, None]
        text = torch.where(dropped, padded_text(empty_text.to(text), text.shape[1]), text)
    return dataclasses.replace(batch, text=text)


def padded_text(text: Tensor, length: int) -> Tensor:
    """[B, L, D] with zeros appended up to `length` tokens, as in Wan; longer texts stay."""
    return F.pad(text, (0, 0, 0, max(0, length - text.shape[1])))


def generate(
    networks: Networks, config: DistillConfig, batch: Batch, draws: Draws, purpose: str, *, grad: bool
) -> Tensor:
    """Roll the generator out to a random exit step, the same on all processes.

    Args:
        networks, config, batch, draws: Of the step.
        purpose: Names this rollout's draws.
        grad: Whether the exit step keeps its graph; the earlier ones never do.

    Returns:
        [B, 16, T, h, w] float32 clean latents, with the given references in their frames.
    """
    schedule = rollout_schedule(config.rollout)
    exit_step = draws.shared_integer(schedule.num_steps, f"{purpose} exit")
    noise = draws.normal(batch.shape, f"{purpose} noise", networks.world.device)

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        return networks.velocity(networks.generator, x, timestep, batch)

    with nullcontext() if grad else torch.no_grad():
        fresh = draws.noise_source(f"{purpose} fresh noise")
        step = rollout(velocity, noise, schedule, exit_step, "renoise", fresh)
        return with_references(step.x0, batch)


def real_prediction(
    networks: Networks, config: DistillConfig, x: Tensor, timestep: Tensor, batch: Batch, empty_text: Tensor
) -> Tensor:
    """The teacher's prediction of the clean latents, guided away from the empty caption.

    Args:
        networks, config, batch: Of the step.
        x: [B, 16, T, h, w] noised latents.
        timestep: [B].
        empty_text: [1, L, D].

    Returns:
        [B, 16, T, h, w] float32.
    """
    count, losses = len(x), config.losses
    length = batch.text.shape[1]
    empty = padded_text(empty_text.to(batch.text), length)[:, :length].expand(count, -1, -1)
    without = dataclasses.replace(batch, text=empty)
    scales = [losses.task_guidance.get(task, losses.guidance) for task in batch.tasks]
    scale = torch.tensor(scales, device=x.device).view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        # The configuration decides, not this micro-batch's tasks: sharded processes must pass equally often.
        if not losses.guides:
            velocity = networks.velocity(networks.real_score, x, timestep, batch)
        elif losses.batch_guidance:
            both = doubled(batch, without)
            pair = networks.velocity(networks.real_score, torch.cat([x, x]), timestep.repeat(2), both)
            velocity = guided(*pair.float().chunk(2), scale)
        else:
            parts = [networks.velocity(networks.real_score, x, timestep, b).float() for b in (batch, without)]
            velocity = guided(*parts, scale)
        return predict_x0(x, velocity, timestep)


def doubled(first: Batch, second: Batch) -> Batch:
    """Two batches of one shape as one, which shares their contexts."""
    contexts = None if first.contexts is None else torch.cat([first.contexts, second.contexts])
    return dataclasses.replace(
        first,
        ids=first.ids + second.ids,
        tasks=first.tasks + second.tasks,
        positions=first.positions + second.positions,
        text=torch.cat([first.text, second.text]),
        latents=None,
        contexts=contexts,
    )


def evaluate_scores(
    networks: Networks,
    config: DistillConfig,
    batch: Batch,
    sample: Tensor,
    empty_text: Tensor,
    draws: Draws,
    purpose: str,
    *,
    through_fake: bool = False,
) -> Scores:
    """Noise a sample and ask both scores for the clean latents: three forward passes.

    Args:
        networks, config, batch, draws: Of the step.
        sample: [B, 16, T, h, w].
        empty_text: [1, L, D].
        purpose: Names these draws.
        through_fake: Keep the fake score's graph from the noised sample.

    Returns:
        The predictions.
    """
    losses, device = config.losses, networks.world.device
    limits = {"low": losses.min_timestep, "high": losses.max_timestep}
    timestep = draws.timesteps(f"{purpose} timestep", shift=losses.score_shift, **limits, device=device)
    noise = draws.normal(batch.shape, f"{purpose} noise", device)
    x = add_noise(sample.detach(), noise, timestep).requires_grad_(through_fake)
    with nullcontext() if through_fake else torch.no_grad():
        fake = predict_x0(x, networks.velocity(networks.fake_score, x, timestep, batch), timestep)
    real = real_prediction(networks, config, x.detach(), timestep, batch, empty_text)
    return Scores(x, timestep, fake, real)
