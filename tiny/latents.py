"""The latent cache: every drawn clip is encoded once, by `vdot_core.vcu.encode`, for several tasks.

Letters: N samples, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.data.wan_vae import encode_video, load_vae
from training.engine.files import load_checkpoint, save_checkpoint
from vdot_core import vcu
from vdot_core.torch_files import load_torch_file

from .clips import CLIPS_VERSION
from .config import CacheGroup
from .tasks import build_unit, draw_scenes
from .vae import weights_digest

logger = logging.getLogger("vdot")
FORMAT, CHUNK_CLIPS = 2, 10
# What of a group its samples depend on; how often they are taken is not of it.
OF_GROUP = ("width", "height", "num_frames", "tasks", "extra", "texture_share", "simple")
SAID = {
    "format": "format of the file",
    "vae": "VAE (teacher.vae)",
    "clips_version": "version of the drawn clips",
    "bf16": "precision (teacher.bf16)",
    "chunk": "number of clips in a file",
    "start": "first clip (the groups before it hold more or fewer)",
}


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

    A chunk of clips is a file, written whole, that says what it was made from: one of another VAE, of other
    clips or of another version of them is refused. One with fewer clips, which ended its group before the
    group grew, is encoded again.

    Args:
        groups: What it holds; each takes the scenes of the training split that follow the previous group's.
        folder: Where the chunks lie.
        vae: The VAE's file.
        bf16: Whether to encode under bfloat16 autocast.
        device: Where to encode.

    Raises:
        ValueError: A chunk that is there was made otherwise; it is named, and what differs.
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
        made_from = {"format": FORMAT, "vae": weights_digest(vae), "clips_version": CLIPS_VERSION}
        self._made_from = {**made_from, "bf16": bf16, "chunk": CHUNK_CLIPS}
        self._outgrown = self._check()

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
                if path.is_file() and path not in self._outgrown:
                    continue
                wanted = self._stamp(number, chunk)
                start = self._starts[number] + chunk * CHUNK_CLIPS
                samples = encode_clips(self.vae, group, "train", start, wanted["clips"], bf16=self.bf16)
                tensors = {name: getattr(samples, name) for name in Samples.__dataclass_fields__}
                save_checkpoint({**tensors, "made_from": wanted}, path)
                self._outgrown.discard(path)
                seconds = time.monotonic() - begun
                logger.info("encoded %s, %d/%d, %.0f s", path.name, chunk + 1, len(paths), seconds)

    def read(self, share: float) -> list[Samples]:
        """The samples of every group that `encode` has made of that part.

        Raises:
            ValueError: A chunk was made otherwise; it is named, and what differs.
        """
        return [self._read_group(number, share) for number in range(len(self.groups))]

    def _read_group(self, number: int, share: float) -> Samples:
        parts = []
        for chunk, path in enumerate(self._paths(number, share)):
            part = load_checkpoint(path)
            _compare(path, part.get("made_from"), self._stamp(number, chunk))
            parts.append(part)
        return Samples(
            torch.cat([p["latents"] for p in parts]),
            torch.cat([p["contexts"] for p in parts]),
            [t for p in parts for t in p["tasks"]],
            [c for p in parts for c in p["captions"]],
        )

    def _check(self) -> set[Path]:
        """Those chunks that are there and hold another number of clips; any other difference is refused."""
        outgrown = set()
        for number in range(len(self.groups)):
            for chunk, path in enumerate(self._paths(number, 1.0)):
                if not path.is_file():
                    continue
                # Mapped, not read: only the pages that say what it was made from.
                found = load_torch_file(path, mapped=True).get("made_from")
                wanted = self._stamp(number, chunk)
                clips = found.get("clips") if isinstance(found, dict) else None
                _compare(path, found, {**wanted, "clips": clips})
                if clips != wanted["clips"]:
                    logger.info("%s holds %s clips of %d: encoded again", path, clips, wanted["clips"])
                    outgrown.add(path)
        return outgrown

    def _stamp(self, number: int, chunk: int) -> dict[str, Any]:
        """All that a chunk depends on."""
        group = self.groups[number]
        clips = min(CHUNK_CLIPS, group.num_clips - chunk * CHUNK_CLIPS)
        own = {name: getattr(group, name) for name in OF_GROUP}
        return {**self._made_from, "start": self._starts[number], **own, "clips": clips}

    def _paths(self, number: int, share: float) -> list[Path]:
        """Files of the first part of a group."""
        group = self.groups[number]
        size = f"{group.width}x{group.height}x{group.num_frames}"
        count = max(1, math.ceil(share * math.ceil(group.num_clips / CHUNK_CLIPS)))
        return [self.folder / f"group{number}-{size}-{chunk:04d}.pt" for chunk in range(count)]


def _compare(path: Path, found: Any, wanted: dict[str, Any]) -> None:
    """Refuse a chunk that was made otherwise, naming the first thing that differs."""
    # Before there were several, a chunk had one hash of it all, which does not say what differs.
    found = found if isinstance(found, dict) else {"format": 1}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} was encoded with another {SAID.get(name, name)}: it has {found.get(name)}, this run "
                f"{value}; give another teacher.cache_dir, or delete that folder to encode anew"
            )
