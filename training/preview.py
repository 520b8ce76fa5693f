"""Sample videos beside their controls, made with the averaged weights while training goes on.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from vdot_core.networks import WanVace
from vdot_core.sampling import sample

from .batch import Batch
from .distill_config import DistillConfig
from .draws import Draws
from .models import Networks
from .scores import prepared, rollout_schedule

FRAME_MS = 62


@torch.no_grad()
def sampled(
    networks: Networks, generator: WanVace, config: DistillConfig, batch: Batch, draws: Draws
) -> Tensor:
    """Run the whole schedule as in training's rollouts.

    Args:
        networks: For the pass.
        generator: The student.
        config: The run.
        batch: On the device, prepared.
        draws: Of the noise.

    Returns:
        [B, 16, T, h, w] float32 latents, without the reference frames.
    """

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        return networks.velocity(generator, x, timestep, batch)

    noise = draws.normal(batch.shape, "preview", networks.world.device)
    fresh = draws.noise_source("preview fresh")
    latents = sample(velocity, noise, rollout_schedule(config.rollout), "renoise", fresh)
    return latents[:, :, batch.num_reference_latents :]


def first_samples(batch: Batch, count: int) -> Batch:
    """A batch of only the first samples."""
    cut = {name: getattr(batch, name)[:count] for name in ("ids", "tasks", "positions", "text")}
    for name in ("latents", "contexts"):
        value = getattr(batch, name)
        cut[name] = None if value is None else value[:count]
    return dataclasses.replace(batch, **cut)


def _panels(batch: Batch, latents: Tensor) -> list[Tensor]:
    """What is shown side by side: what is kept, what is changed or shown, the result, the real clip."""
    count, panels = batch.num_reference_latents, []
    if batch.contexts is not None:
        panels += [batch.contexts[:, 0, :16, count:], batch.contexts[:, 0, 16:32, count:]]
    panels.append(latents)
    if batch.latents is not None:
        panels.append(batch.latents[:, :, count:])
    return panels


def write_samples(networks: Networks, config: DistillConfig, source, step: int) -> Tensor:
    """Write an animation per sample to `out_dir/samples`; every process must call it.

    Args:
        networks: With the averaged weights.
        config: The run; `log.vae` decodes, clip by clip.
        source: Whose first batch is shown, the same every time.
        step: Names the files.

    Returns:
        [H, W, 3] a still picture: the first, middle and last frame of each sample, left to right.
    """
    from .dataset.encoders import VideoEncoder

    world = networks.world
    batch = first_samples(source.batches(0, world.rank, world.size)[0], config.log.num_samples)
    draws = Draws(config.seed, 0, batch.positions)
    batch = prepared(batch, networks, source.empty_text, draws, 0.0)
    networks.average.swap(networks.generator)
    try:
        latents = sampled(networks, networks.generator, config, batch, draws)
    finally:
        networks.average.swap(networks.generator)
    vae = VideoEncoder(config.log.vae, world.device)
    shown = torch.cat([vae.decode(panel) for panel in _panels(batch, latents)], dim=3)
    for position, task, video in zip(batch.positions, batch.tasks, shown, strict=True):
        path = Path(config.out_dir) / "samples" / f"step-{step:06d}-{position}-{task}.webp"
        write_animation(video, path)
    frames = shown[:, [0, shown.shape[1] // 2, shown.shape[1] - 1]]
    return torch.cat([torch.cat(list(one), dim=1) for one in frames])


def write_animation(video: Tensor, path: Path) -> None:
    """Write [F, H, W, 3] in [0, 1] as an endless WebP."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(frame) for frame in (video * 255).round().byte().numpy()]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=90)
