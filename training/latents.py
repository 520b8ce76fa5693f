"""The latent cache: every clip is encoded once, by `vdot_core.vcu.encode`, for several tasks.

Letters: N samples, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vdot_core import vcu

from .config import CacheGroup
from .files import load_checkpoint, save_checkpoint
from .tasks import build_unit, draw_scenes
from .vae import encode_video

logger = logging.getLogger("vdot")
CHUNK_CLIPS = 100


@dataclass(frozen=True)
class Samples:
    """Encoded samples of one size.

    Attributes:
        latents: [N, 16, T, h, w] float16, what is to be generated, normalised; references first.
        contexts: [N, 96, T, h, w] float16.
        tasks: N task names; captions: N tuples of true captions.
    """

    latents: Tensor
    contexts: Tensor
    tasks: list[str]
    captions: list[list[str]]


def _chosen_tasks(group: CacheGroup, rng: np.random.Generator) -> list[str]:
    return [*group.tasks, *([str(rng.choice(group.extra))] if group.extra else [])]


@torch.no_grad()
def encode_clips(
    vae: nn.Module, group: CacheGroup, split: str, first: int, count: int, *, bf16: bool
) -> Samples:
    """Draw clips and encode them for the group's tasks.

    Args:
        vae: The VAE, frozen.
        group: Size and tasks.
        split: Whose seeds.
        first, count: Which of the split's scenes.
        bf16: Whether to encode under bfloat16 autocast.

    Returns:
        The samples, about `count * len(group.tasks)` of them.
    """

    def vae_encode(video: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return encode_video(vae, video).float()

    latents, contexts, tasks, captions = [], [], [], []
    grey, size = vcu.GreyCache(), (group.num_frames, group.height, group.width)
    for index in range(first, first + count):
        rng = np.random.default_rng([index, 13])
        chosen, videos = _chosen_tasks(group, rng), {}
        scenes = draw_scenes(chosen, index, split, group.texture_share, size, simple=group.simple)
        for task in chosen:
            scene = scenes[task]
            if id(scene) not in videos:
                videos[id(scene)] = vae_encode(scene.frames[None])[0]
            video = videos[id(scene)]
            encoded = vcu.encode(build_unit(task, scene, rng), vae_encode, cache=grey, vae=vae)
            context = encoded.contexts[0, 0]
            references = context[:16, : encoded.num_reference_latents]
            latents.append(torch.cat([references, video], dim=1).half())
            contexts.append(context.half())
            tasks.append(task)
            captions.append(list(scene.captions))
    return Samples(torch.stack(latents), torch.stack(contexts), tasks, captions)


def _join(parts: list[dict]) -> Samples:
    return Samples(
        torch.cat([p["latents"] for p in parts]),
        torch.cat([p["contexts"] for p in parts]),
        [t for p in parts for t in p["tasks"]],
        [c for p in parts for c in p["captions"]],
    )


def _chunk_paths(group: CacheGroup, number: int, folder: Path) -> list[Path]:
    size = f"{group.width}x{group.height}x{group.num_frames}"
    count = math.ceil(group.num_clips / CHUNK_CLIPS)
    return [Path(folder) / f"group{number}-{size}-{chunk:04d}.pt" for chunk in range(count)]


def fill_cache(
    vae: nn.Module,
    group: CacheGroup,
    number: int,
    folder: Path,
    *,
    bf16: bool,
    start: int,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Encode what is missing of a group's training samples; several processes share the work.

    Args:
        vae: The VAE; a cache made with another one must be deleted by hand.
        group: What to encode.
        number: The group's place in the configuration; part of the file names.
        folder: Where chunks lie; each is written whole.
        bf16: As in `encode_clips`.
        start: First scene of the training split to use.
        rank, world_size: Which of several processes this one is: each encodes every `world_size`-th chunk.
    """
    paths, begun = _chunk_paths(group, number, folder), time.monotonic()
    for chunk, path in list(enumerate(paths))[rank::world_size]:
        if path.is_file():
            continue
        count = min(CHUNK_CLIPS, group.num_clips - chunk * CHUNK_CLIPS)
        samples = encode_clips(vae, group, "train", start + chunk * CHUNK_CLIPS, count, bf16=bf16)
        save_checkpoint({name: getattr(samples, name) for name in Samples.__dataclass_fields__}, path)
        seconds = time.monotonic() - begun
        logger.info("encoded %s, %d/%d, %.0f s", path.name, chunk + 1, len(paths), seconds)


def read_cache(group: CacheGroup, number: int, folder: Path) -> Samples:
    """A group's training samples, all of which `fill_cache` has written."""
    return _join([load_checkpoint(path) for path in _chunk_paths(group, number, folder)])
