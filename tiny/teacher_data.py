"""What a teacher learns from: drawn clips, encoded as they come into use, or real ones, encoded before.

Letters: B samples, K contexts, L tokens, D text width, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from training.data.cache import Cache
from training.data.source import CachedSource
from training.distributed.precision import uses_bf16
from training.distributed.world import World
from vdot_core.networks.context_scale import ContextScale

from .config import CacheGroup, TeacherConfig
from .latents import LatentCache, Samples, encode_clips

logger = logging.getLogger("vdot")
SMALLEST_SHARE = 1 / 32


@dataclass(frozen=True, eq=False)
class TeacherBatch:
    """One process's part of a step's batch.

    Attributes:
        latents: [B, 16, T, h, w] float32, normalised, references first.
        contexts: [B, K, 96, T, h, w] float32.
        text: B captions, or their embeddings [B, L, D].
        first: Place of its first sample in the batch of all processes; total: samples of that.
        scale: What the contexts are weighted by.
    """

    latents: Tensor
    contexts: Tensor
    text: Sequence[str] | Tensor
    first: int
    total: int
    scale: float | ContextScale = 1.0

    def __len__(self) -> int:
        return len(self.latents)


class Clips(Protocol):
    """Where a teacher's batches come from."""

    def batch(self, step: int) -> TeacherBatch:
        """This process's part of a step's batch, a pure function of the step."""

    def held_out(self) -> Sequence[tuple[str, TeacherBatch]]:
        """Samples to validate on, each with its task's name."""


def share_in_use(step: int, grow_steps: int) -> float:
    """The part of the clips that a step draws from: a 32nd at first, doubled until all are in use.

    Args:
        step: From 0.
        grow_steps: Step from which all are in use; 0: from the first.

    Returns:
        1 / 32, 1 / 16, .. or 1.
    """
    if step >= grow_steps:
        return 1.0
    return max(2.0 ** math.floor(math.log2(max(step, 1) / grow_steps)), SMALLEST_SHARE)


def sample_odds(
    groups: Sequence[CacheGroup], samples: Sequence[Samples], shares: Mapping[str, float]
) -> list[np.ndarray]:
    """How often each sample should be taken, so that every task has its share of them all.

    Within a task a sample's odds go with its group's weight.

    Args:
        groups: What the cache holds.
        samples: The samples of each group.
        shares: Task -> its share; tasks that are not named share the rest equally.

    Returns:
        For each group the odds of each of its samples; those of all groups sum to 1.

    Raises:
        ValueError: A named task has no sample, or no task has a share.
    """
    counts: dict[str, float] = {}
    for group, own in zip(groups, samples, strict=True):
        for task in own.tasks:
            counts[task] = counts.get(task, 0.0) + group.weight
    # An extra task that no clip was drawn for yet is one to come, not a mistake.
    known = counts.keys() | {task for group in groups for task in (*group.tasks, *group.extra)}
    if missing := sorted(shares.keys() - known):
        raise ValueError(f"task_shares names {missing}, which no group has; they have {sorted(known)}")
    given = {task: share for task, share in shares.items() if task in counts}
    left = (1 - sum(shares.values())) / max(len(counts) - len(given), 1)
    wanted = {task: given.get(task, left) for task in sorted(counts)}
    total = sum(wanted.values())
    if total <= 0:
        raise ValueError(f"task_shares leaves nothing for any of {sorted(counts)}")
    logger.info("shares: %s", ", ".join(f"{task} {share / total:.1%}" for task, share in wanted.items()))
    return [
        np.array([wanted[task] / total * group.weight / counts[task] for task in own.tasks])
        for group, own in zip(groups, samples, strict=True)
    ]


def draw_caption(
    phrasings: Sequence[str], task: str, settings: TeacherConfig, rng: np.random.Generator
) -> str:
    """One of a sample's phrasings, or none as often as its task is to do without."""
    dropped = rng.random() < settings.task_text_drop.get(task, settings.text_drop)
    return "" if dropped else phrasings[int(rng.integers(len(phrasings)))]


class DrawnClips:
    """Batches of drawn clips, all samples of one from one group; see `Clips`.

    Args:
        settings: Groups, shares and the folder that encoded clips are kept in.
        seed: Of all draws.
        world: The processes that share batches and encoding.
    """

    def __init__(self, settings: TeacherConfig, seed: int, world: World) -> None:
        self.settings, self.seed, self.world = settings, seed, world
        bf16 = uses_bf16(settings.bf16, world.device, "teacher.bf16")
        self.cache = LatentCache(
            settings.groups, settings.cache_dir, settings.vae, bf16=bf16, device=world.device
        )
        self._share = 0.0

    def _use(self, share: float) -> None:
        """Have this part of the clips ready."""
        if share == self._share:
            return
        self.cache.encode(share, self.world.rank, self.world.size)
        self.world.barrier()
        self._samples, self._share = self.cache.read(share), share
        odds = sample_odds(self.settings.groups, self._samples, self.settings.task_shares)
        self._group_odds = np.array([own.sum() for own in odds])
        self._odds = [own / max(own.sum(), 1e-12) for own in odds]

    def batch(self, step: int) -> TeacherBatch:
        """This process's part of a step's batch; larger clips make smaller batches."""
        settings, size = self.settings, self.world.size
        self._use(share_in_use(step, settings.grow_steps))
        rng = np.random.default_rng([self.seed, step, 17])
        number = int(rng.choice(len(self._samples), p=self._group_odds / self._group_odds.sum()))
        samples = self._samples[number]
        tokens = samples.latents[0, 0].numel() / self._samples[0].latents[0, 0].numel()
        total = size * max(1, round(settings.batch / tokens / size))
        picks = rng.choice(len(samples.tasks), size=total, p=self._odds[number])
        captions = [draw_caption(samples.captions[i], samples.tasks[i], settings, rng) for i in picks]
        first, count = self.world.rank * total // size, total // size
        own = torch.from_numpy(picks[first : first + count])
        contexts = samples.contexts[own].float()[:, None]
        text = captions[first : first + count]
        return TeacherBatch(samples.latents[own].float(), contexts, text, first, total)

    def held_out(self) -> list[tuple[str, TeacherBatch]]:
        """Clips of the first group's kind that no group holds."""
        settings = self.settings
        group, count = settings.groups[0], settings.num_validation
        samples = encode_clips(self.cache.vae, group, "validation", 0, count, bf16=self.cache.bf16)
        parts = []
        for number, task in enumerate(samples.tasks):
            latents, context = samples.latents[number].float(), samples.contexts[number].float()
            text = [samples.captions[number][-1]]
            parts.append((task, TeacherBatch(latents[None], context[None, None], text, 0, 1)))
        return parts


class RealClips:
    """Batches of a cache that training/cache.py has filled; see `Clips`.

    Args:
        settings: The cache's folder, the batch and the shares.
        seed: Of all draws.
        world: The processes that share batches.

    Raises:
        ValueError: The cache is not finished, or none of its samples has a real clip.
    """

    def __init__(self, settings: TeacherConfig, seed: int, world: World) -> None:
        self.settings, self.seed, self.world = settings, seed, world
        cache = Cache(settings.clips)
        given = {"task_weights": dict(settings.task_shares), "need_latents": True}
        drawn = {"global_batch": settings.batch, "accumulation": 1}
        self.source = CachedSource(cache, seed=seed, **drawn, **given)
        self.text_dim = cache.empty_text.shape[-1]

    def batch(self, step: int) -> TeacherBatch:
        """This process's part of a step's batch."""
        (batch,) = self.source.batches(step, self.world.rank, self.world.size)
        text, total = batch.text.float(), self.settings.batch
        for number, (task, position) in enumerate(zip(batch.tasks, batch.positions, strict=True)):
            rng = np.random.default_rng([self.seed, step, position, 17])
            if rng.random() < self.settings.task_text_drop.get(task, self.settings.text_drop):
                text[number] = self.source.empty_text[0]
        first, scale = batch.positions[0], batch.context_scale
        return TeacherBatch(batch.latents.float(), batch.contexts.float(), text, first, total, scale)

    def held_out(self) -> list[tuple[str, TeacherBatch]]:
        """None: a cache holds what is trained on."""
        return []
