"""The latent cache: every drawn clip is encoded once, by `vdot_core.vcu.encode`, for several tasks.

Letters: N samples, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vdot_core import vcu

from .config import CacheGroup
from .dataset.store import digest
from .files import load_checkpoint, save_checkpoint
from .tasks import build_unit, draw_scenes
from .vae import encode_video, load_vae

logger = logging.getLogger("vdot")
FORMAT, CHUNK_CLIPS = 1, 25


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
        The samples, about `count * len(group.tasks)` of them, on the CPU.
    """
    device = next(vae.parameters()).device

    def vae_encode(video: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return encode_video(vae, video.to(device)).float().cpu()

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


class LatentCache:
    """Groups of drawn clips on disk, encoded as far as they are asked for; several processes share the work.

    A chunk of clips is a file, written whole, that says what it was made from: one of another VAE or of other
    clips is refused.

    Args:
        groups: What it holds; each takes the scenes of the training split that follow the previous group's.
        folder: Where the chunks lie.
        vae: The VAE's file.
        bf16: Whether to encode under bfloat16 autocast.
        device: Where to encode.
    """

    def __init__(
        self,
        groups: Sequence[CacheGroup],
        folder: str | Path,
        vae: str | Path,
        *,
        bf16: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        self.groups, self.folder, self.bf16 = groups, Path(folder), bf16
        self.vae = load_vae(vae).to(device)
        counts = [group.num_clips for group in groups]
        self._starts = [sum(counts[:number]) for number in range(len(counts))]
        made_from = {"format": FORMAT, "vae": digest(vae), "bf16": bf16, "chunk": CHUNK_CLIPS}
        self._stamps = [
            _stamp({**made_from, "start": start}, group)
            for start, group in zip(self._starts, groups, strict=True)
        ]

    def encode(self, share: float, rank: int = 0, world_size: int = 1) -> None:
        """Encode what is missing of the first part of every group.

        Args:
            share: How much of each group is needed, in (0, 1].
            rank, world_size: Which of several processes this is: each encodes every `world_size`-th chunk.
        """
        begun = time.monotonic()
        for number, group in enumerate(self.groups):
            paths = self._paths(number, share)
            for chunk, path in list(enumerate(paths))[rank::world_size]:
                if path.is_file():
                    continue
                first = chunk * CHUNK_CLIPS
                count = min(CHUNK_CLIPS, group.num_clips - first)
                start = self._starts[number] + first
                samples = encode_clips(self.vae, group, "train", start, count, bf16=self.bf16)
                tensors = {name: getattr(samples, name) for name in Samples.__dataclass_fields__}
                save_checkpoint({**tensors, "made_from": self._stamps[number]}, path)
                seconds = time.monotonic() - begun
                logger.info("encoded %s, %d/%d, %.0f s", path.name, chunk + 1, len(paths), seconds)

    def read(self, share: float) -> list[Samples]:
        """The samples of every group that `encode` has made of that part.

        Raises:
            ValueError: A chunk was made from another VAE or from other clips; it is named.
        """
        return [self._read_group(number, share) for number in range(len(self.groups))]

    def _read_group(self, number: int, share: float) -> Samples:
        parts = []
        for path in self._paths(number, share):
            part = load_checkpoint(path)
            if part.get("made_from") != self._stamps[number]:
                raise ValueError(
                    f"{path} was encoded with another VAE, precision or group of clips than this run's; "
                    "give another teacher.cache_dir, or delete that folder to encode anew"
                )
            parts.append(part)
        return Samples(
            torch.cat([p["latents"] for p in parts]),
            torch.cat([p["contexts"] for p in parts]),
            [t for p in parts for t in p["tasks"]],
            [c for p in parts for c in p["captions"]],
        )

    def _paths(self, number: int, share: float) -> list[Path]:
        """Files of the first part of a group."""
        group = self.groups[number]
        size = f"{group.width}x{group.height}x{group.num_frames}"
        count = max(1, math.ceil(share * math.ceil(group.num_clips / CHUNK_CLIPS)))
        return [self.folder / f"group{number}-{size}-{chunk:04d}.pt" for chunk in range(count)]


def _stamp(made_from: dict, group: CacheGroup) -> str:
    """A name for all that a group's samples depend on."""
    named = ("width", "height", "num_frames", "tasks", "extra", "texture_share", "simple")
    values = {**made_from, **{name: getattr(group, name) for name in named}}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
