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
from .tasks import NEEDS_SHAPES, build_unit, draw_scene
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


def _chosen_tasks(group: CacheGroup, scene, rng: np.random.Generator) -> list[str]:
    tasks = list(group.tasks)
    if group.extra:
        tasks.append(str(rng.choice(group.extra)))
    # A texture has no exact depth or lines: it serves to learn keeping and continuing.
    return tasks if scene.depth is not None else [t for t in tasks if t not in NEEDS_SHAPES] or ["inpaint"]


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
    grey = vcu.GreyCache()
    for index in range(first, first + count):
        rng = np.random.default_rng([index, 13])
        scene = draw_scene(index, split, group.texture_share, (group.num_frames, group.height, group.width))
        video = vae_encode(scene.frames[None])[0]
        for task in _chosen_tasks(group, scene, rng):
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


def cached_group(
    vae: nn.Module, group: CacheGroup, number: int, folder: Path, *, bf16: bool, start: int
) -> Samples:
    """A group's training samples, encoded now or read from an earlier start.

    Args:
        vae: The VAE; a cache made with another one must be deleted by hand.
        group: What to encode.
        number: The group's place in the configuration; part of the file names.
        folder: Where chunks lie; each is written whole.
        bf16: As in `encode_clips`.
        start: First scene of the training split to use.
    """
    parts = []
    num_chunks = math.ceil(group.num_clips / CHUNK_CLIPS)
    begun = time.monotonic()
    for chunk in range(num_chunks):
        path = Path(folder) / f"group{number}-{group.width}x{group.height}x{group.num_frames}-{chunk:04d}.pt"
        if path.is_file():
            parts.append(load_checkpoint(path))
            continue
        count = min(CHUNK_CLIPS, group.num_clips - chunk * CHUNK_CLIPS)
        samples = encode_clips(vae, group, "train", start + chunk * CHUNK_CLIPS, count, bf16=bf16)
        parts.append({name: getattr(samples, name) for name in Samples.__dataclass_fields__})
        save_checkpoint(parts[-1], path)
        seconds = time.monotonic() - begun
        logger.info("encoded %s, %d/%d, %.0f s", path.name, chunk + 1, num_chunks, seconds)
    return _join(parts)
