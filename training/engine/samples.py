"""Sample videos beside what was asked for, made with the averaged weights while training goes on.

Letters: B batch, K contexts, R references, T latent frames, h w latents, F frames, H W pixels.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vdot_core.networks import WanVace
from vdot_core.sampling import sample
from vdot_core.vcu import LATENT_CHANNELS, VAE_STRIDE

from ..data.batch import Batch
from ..methods.scores import prepared, references, rollout_schedule
from .config import DistillConfig, LogConfig
from .draws import Draws
from .networks import Networks

if TYPE_CHECKING:
    from PIL import Image

    from ..data.cache import Cache
    from ..data.encoders import VideoEncoder
    from ..data.samples import SampleInfo
    from .trainer import Source

logger = logging.getLogger("vdot")
FRAME_MS = 62
# A GIF takes about a byte a pixel: what is logged is smaller than the file beside it.
GIF_WIDTH_PX, GIF_FRAMES = 960, 41


@dataclass(frozen=True)
class SampleVideo:
    """A sample as TensorBoard and Weights & Biases play it.

    Attributes:
        name: Its number among the samples, from 0, and its task, such as 0-depth.
        gif: An animated GIF.
        width: In pixels.
        height: In pixels.
    """

    name: str
    gif: bytes
    width: int
    height: int


def shows_samples(log: LogConfig) -> bool:
    """Whether a run makes sample videos.

    Args:
        log: Of the run.

    Raises:
        ValueError: It does, and their VAE is not there: better said now than after the first hours.
    """
    if not (log.vae and log.sample_every):
        return False
    if not Path(log.vae).exists():
        raise ValueError(
            f"log.vae is {log.vae}, which does not exist; give the VAE that decodes sample videos, or null "
            "to make none"
        )
    return True


def chosen(infos: Sequence[SampleInfo], config: DistillConfig) -> list[int]:
    """Which samples are shown: the first of each task, then the second of each, until they are enough.

    Args:
        infos: Of all samples.
        config: `data.task_weights` orders the tasks; without them they come as in the data.

    Returns:
        At most `log.num_samples` places in `infos`; they depend on nothing else, so that every interval and
        any number of processes shows the same.
    """
    weights: Mapping[str, float] = config.data.task_weights
    by_task: dict[str, list[int]] = {task: [] for task, weight in weights.items() if weight > 0}
    for number, info in enumerate(infos):
        trained = info.has_latents or not config.losses.gan
        if trained and (not weights or info.task in by_task):
            by_task.setdefault(info.task, []).append(number)
    turns = zip_longest(*by_task.values())
    return [number for turn in turns for number in turn if number is not None][: config.log.num_samples]


def sample_batch(cache: Cache, number: int, place: int, *, text_only: bool) -> Batch:
    """One sample of a cache, with its first caption, at a place that keys its noise."""
    from ..data.samples import collate

    info = cache.samples[number][1]
    tensors = cache.read(number, 0, contexts=not text_only, latents=info.has_latents)
    return collate([(info, tensors)], (place,), cache.text_len, text_only=text_only)


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


def mask_frames(channels: Tensor) -> Tensor:
    """The masks that `vdot_core.vcu.encode.mask_channels` folded.

    Args:
        channels: [64, T, h, w] of 0 and 1.

    Returns:
        [F, H, W]; the frames of a latent frame share its mask.
    """
    stride_t, stride_y, stride_x = VAE_STRIDE
    length, height, width = channels.shape[1:]
    masks = channels.unflatten(0, (stride_y, stride_x)).permute(2, 3, 0, 4, 1)
    masks = masks.reshape(length, height * stride_y, width * stride_x)
    num_frames = stride_t * (length - 1) + 1
    return masks[(torch.arange(num_frames) + stride_t - 1) // stride_t]


def _control_frames(context: Tensor, masks: Tensor, vae: VideoEncoder) -> Tensor:
    """[F, H, W, 3] of a context [96, T, h, w]: what is kept where the mask is 0, else the control."""
    generate = masks[..., None] > 0.5

    def half(first: int) -> Tensor:
        return vae.decode(context[None, first : first + LATENT_CHANNELS])[0]

    if generate.all():
        return half(LATENT_CHANNELS)
    if not generate.any():
        return half(0)
    return torch.where(generate, half(LATENT_CHANNELS), half(0))


def panels(batch: Batch, latents: Tensor, vae: VideoEncoder) -> Tensor:
    """A sample beside all that the generator was given for it.

    Args:
        batch: Of one sample.
        latents: [1, 16, T, h, w] the generator's, without references.
        vae: Decodes.

    Returns:
        [F, H, W, 3] in [0, 1] on the CPU, from left to right: each reference, control and mask of each
        context, the result, the real clip; without what the sample does not have.
    """
    count, result, shown = batch.num_reference_latents, vae.decode(latents)[0], []
    images = references(batch)
    if images is not None:
        # A reference was encoded as a clip of its own: decoded in a row, they would run into each other.
        stills = vae.decode(images[0].movedim(1, 0)[:, :, None])
        shown += [still.expand_as(result) for still in stills]
    if batch.contexts is not None:
        for context in batch.contexts[0, :, :, count:]:
            masks = mask_frames(context[2 * LATENT_CHANNELS :]).cpu()
            shown += [_control_frames(context, masks, vae), masks[..., None].expand_as(result)]
    shown.append(result)
    if batch.latents is not None:
        shown.append(vae.decode(batch.latents[:, :, count:])[0])
    return torch.cat(shown, dim=2)


def write_samples(networks: Networks, config: DistillConfig, source: Source, step: int) -> list[SampleVideo]:
    """Write an animation of each sample to `out_dir/samples`; every process must call it.

    Args:
        networks: With the averaged weights.
        config: The run; `log.vae` decodes.
        source: Of whose cache some samples are shown, the same every time.
        step: Names the files.

    Returns:
        All processes' samples in order, for the log.
    """
    from ..data.encoders import VideoEncoder

    world, begun = networks.world, time.monotonic()
    own = _made(networks, config, source)
    # Only now, with the generator's passes done, is there room for the VAE.
    vae = VideoEncoder(config.log.vae, world.device) if own else None
    videos: dict[int, SampleVideo] = {}
    for batch, latents in own:
        place, name = batch.positions[0], f"{batch.positions[0]}-{batch.tasks[0]}"
        frames = to_images(panels(batch, latents, vae))
        write_animation(frames, Path(config.out_dir) / "samples" / f"step-{step:06d}-{name}.webp")
        videos[place] = log_video(frames, name)
    # The first process alone logs: it is given what the others made.
    everyone = {place: video for found in world.gather(videos) for place, video in found.items()}
    logger.info("step %d: %d sample videos, %.0f s", step, len(everyone), time.monotonic() - begun)
    return [video for _, video in sorted(everyone.items())]


def _made(networks: Networks, config: DistillConfig, source: Source) -> list[tuple[Batch, Tensor]]:
    """This process's share of the samples, and what the averaged generator made of them."""
    world, text_only = networks.world, config.model.text_only
    own = []
    networks.average.swap(networks.generator)
    try:
        for place, number in enumerate(chosen([info for _, info in source.cache.samples], config)):
            # A pass gathers sharded weights as often as the sample's contexts need them: all processes run
            # the same sample at once, whoever shows it.
            batch = sample_batch(source.cache, number, place, text_only=text_only)
            draws = Draws(config.seed, 0, batch.positions)
            batch = prepared(batch, networks, source.empty_text, draws, 0.0)
            latents = sampled(networks, networks.generator, config, batch, draws)
            if place % world.size == world.rank:
                own.append((batch, latents))
    finally:
        networks.average.swap(networks.generator)
    return own


def to_images(video: Tensor) -> list[Image.Image]:
    """[F, H, W, 3] in [0, 1] -> F pictures."""
    from PIL import Image

    return [Image.fromarray(frame) for frame in (video.clamp(0, 1) * 255).round().byte().numpy()]


def write_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """Write an endless WebP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=90)


def log_video(frames: Sequence[Image.Image], name: str) -> SampleVideo:
    """An endless GIF as fast as the frames are, large ones made smaller and long ones of fewer frames."""
    from PIL import Image

    every = -(-len(frames) // GIF_FRAMES)
    width, height = frames[0].size
    if width > GIF_WIDTH_PX:
        width, height = GIF_WIDTH_PX, max(1, round(height * GIF_WIDTH_PX / width))
    shown = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames[::every]]
    file = io.BytesIO()
    given = {"save_all": True, "append_images": shown[1:], "duration": FRAME_MS * every, "loop": 0}
    shown[0].save(file, "GIF", **given)
    return SampleVideo(name, file.getvalue(), width, height)
