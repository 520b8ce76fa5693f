"""Sample videos next to their conditions, made with the averaged weights during training.

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
from einops import rearrange
from torch import Tensor

from vdot_core.vcu import LATENT_CHANNELS, VAE_STRIDE
from vdot_core.vcu.sizes import FRAME_RATE

from ..data.batch import Batch, references
from ..distributed.world import World
from .average import AveragedWeights
from .config import LogConfig, RunConfig
from .draws import Draws
from .method import Method, prepare

if TYPE_CHECKING:
    from PIL import Image

    from ..data.cache import Cache
    from ..data.encoded import SampleInfo
    from ..data.encoders import VideoEncoder
    from ..data.source import Source

logger = logging.getLogger("vdot")
FRAME_MS = int(1000 / FRAME_RATE)
# A GIF takes about a byte per pixel: logged videos are smaller than the files.
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
    """True if a run makes sample videos.

    Args:
        log: Of the run.

    Raises:
        ValueError: It does, and their VAE is missing: fail early.
    """
    if not (log.vae and log.sample_every):
        return False
    if not Path(log.vae).exists():
        raise ValueError(
            f"log.vae is {log.vae}, which does not exist; give the VAE that decodes sample videos, or null "
            "to make none"
        )
    return True


def chosen(
    infos: Sequence[SampleInfo], weights: Mapping[str, float], count: int, *, needs_latents: bool
) -> list[int]:
    """Choose samples to show: the first of each task, then the second of each, until there are enough.

    Args:
        infos: Of the samples to choose from.
        weights: `data.task_weights`, which order the tasks; without them they come as in the data.
        count: Number of samples, at most.
        needs_latents: Leave out samples without a real clip.

    Returns:
        Places in `infos`; they depend on nothing else, so that every interval and any number of processes
        shows the same.
    """
    by_task: dict[str, list[int]] = {task: [] for task, weight in weights.items() if weight > 0}
    for number, info in enumerate(infos):
        trained = info.has_latents or not needs_latents
        if trained and (not weights or info.task in by_task):
            by_task.setdefault(info.task, []).append(number)
    turns = zip_longest(*by_task.values())
    return [number for turn in turns for number in turn if number is not None][:count]


def sample_batch(cache: Cache, number: int, place: int, *, text_only: bool) -> Batch:
    """One sample of a cache, with its first caption, at a place that keys its noise."""
    from ..data.encoded import collate

    info = cache.samples[number][1]
    sample = cache.read(number, 0, contexts=not text_only)
    return collate([sample], info.shape, (place,), cache.text_len)


def mask_frames(channels: Tensor) -> Tensor:
    """The masks that `vdot_core.vcu.encode.mask_channels` folded.

    Args:
        channels: [64, T, h, w] of 0 and 1.

    Returns:
        [F, H, W]; the frames of a latent frame share its mask.
    """
    stride_t, stride_y, stride_x = VAE_STRIDE
    masks = rearrange(channels, "(y x) t h w -> t (h y) (w x)", y=stride_y, x=stride_x)
    num_frames = stride_t * (channels.shape[1] - 1) + 1
    return masks[(torch.arange(num_frames) + stride_t - 1) // stride_t]


def _control_frames(context: Tensor, masks: Tensor, vae: VideoEncoder) -> Tensor:
    """[F, H, W, 3] of a context [96, T, h, w]: kept pixels where the mask is 0, else the control."""
    generate = masks[..., None] > 0.5

    def half(first: int) -> Tensor:
        return vae.decode(context[None, first : first + LATENT_CHANNELS])[0]

    if generate.all():
        return half(LATENT_CHANNELS)
    if not generate.any():
        return half(0)
    return torch.where(generate, half(LATENT_CHANNELS), half(0))


def panels(batch: Batch, latents: Tensor, vae: VideoEncoder) -> Tensor:
    """A sample next to all of its conditions.

    Args:
        batch: Of one sample.
        latents: [1, 16, T, h, w] the generator's, without references.
        vae: Decodes.

    Returns:
        [F, H, W, 3] in [0, 1] on the CPU, from left to right: each reference, control and mask of each
        context, the result, the real clip; without what the sample does not have.
    """
    count, result, columns = batch.num_reference_latents, vae.decode(latents)[0], []
    images = references(batch)
    if images is not None:
        # References were encoded as separate clips: decoded in sequence, they would blend into each other.
        stills = vae.decode(rearrange(images[0], "c t h w -> t c 1 h w"))
        columns += [still.expand_as(result) for still in stills]
    if batch.contexts is not None:
        for context in batch.contexts[0, :, :, count:]:
            masks = mask_frames(context[2 * LATENT_CHANNELS :]).cpu()
            columns += [_control_frames(context, masks, vae), masks[..., None].expand_as(result)]
    columns.append(result)
    if batch.latents is not None:
        columns.append(vae.decode(batch.latents[:, :, count:])[0])
    return torch.cat(columns, dim=2)


def write_samples(
    method: Method, average: AveragedWeights, config: RunConfig, source: Source, world: World, step: int
) -> list[SampleVideo]:
    """Write an animation of each sample to `out_dir/samples`; every process must call it.

    Args:
        method: Samples.
        average: The averaged weights, which are used.
        config: The run; `log.vae` decodes.
        source: Gives the samples from its cache, the same every time; those held out, if there are any.
        world: The processes.
        step: Part of the files' names.

    Returns:
        All processes' samples in order, for the log.
    """
    from ..data.encoders import VideoEncoder

    begin = time.monotonic()
    own = _sampled(method, average, config, source, world)
    # Only now, with the network's passes done, is there memory for the VAE.
    vae = VideoEncoder(config.log.vae, world.device) if own else None
    videos: dict[int, SampleVideo] = {}
    for batch, latents in own:
        place, name = batch.positions[0], f"{batch.positions[0]}-{batch.tasks[0]}"
        frames = to_images(panels(batch, latents, vae))
        write_animation(frames, Path(config.out_dir) / "samples" / f"step-{step:06d}-{name}.webp")
        videos[place] = log_video(frames, name)
    # Only rank 0 logs, so it gathers what the others made.
    everyone = {place: video for part in world.gather(videos) for place, video in part.items()}
    logger.info("step %d: %d sample videos, %.0f s", step, len(everyone), time.monotonic() - begin)
    return [video for _, video in sorted(everyone.items())]


def _sampled(
    method: Method, average: AveragedWeights, config: RunConfig, source: Source, world: World
) -> list[tuple[Batch, Tensor]]:
    """This process's share of the samples, each with its latents, reference frames cut off."""
    network, own = method.networks[method.averaged], []
    text_only = not method.sizes.vace_layers
    average.swap(network)
    try:
        numbers = source.held_out or range(len(source.cache.samples))
        infos = [source.cache.samples[number][1] for number in numbers]
        weights, count = config.data.task_weights, config.log.num_samples
        picked = chosen(infos, weights, count, needs_latents=method.needs_latents)
        for place, number in enumerate(numbers[number] for number in picked):
            # A pass gathers sharded weights as often as the sample's contexts need them: all processes run
            # the same sample at once; one of them shows it.
            batch = sample_batch(source.cache, number, place, text_only=text_only)
            draws = Draws(config.seed, 0, batch.positions)
            batch = prepare(batch, draws, method, world.device, drop=False)
            latents = method.sample(batch, draws)[:, :, batch.num_reference_latents :]
            if place % world.size == world.rank:
                own.append((batch, latents))
    finally:
        average.swap(network)
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
    thumbnails = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames[::every]]
    file = io.BytesIO()
    thumbnails[0].save(
        file, "GIF", save_all=True, append_images=thumbnails[1:], duration=FRAME_MS * every, loop=0
    )
    return SampleVideo(name, file.getvalue(), width, height)
