"""Batches of training samples: the protocol, and its implementation over a cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .bad_rows import Skipped, log_skipped
from .batch import Batch
from .cache import Cache
from .config import micro_batch_size
from .encoded import SampleInfo, collate
from .held_out import clip_of
from .sampler import Sampler

logger = logging.getLogger("vdot")
CAPTIONS = 3
NUM_NAMED = 3


# Of a cache's header: what changes with rows that are appended.
GROWING = ("rows", "num_shards", "format")


class Source(Protocol):
    """The source of a trainer's batches; picklable, so that background processes can read them.

    Attributes:
        cache: The encoded samples, for sample videos.
        held_out: Places in the cache of the samples that are in no batch, for validation.
        empty_text: [1, L, D] float, the condition without a caption.
        encoding: Identifies what encoded the samples: models, sizes, number formats.
    """

    cache: Cache
    held_out: Sequence[int]
    empty_text: Tensor
    encoding: str

    def batches(self, step: int, rank: int, world_size: int) -> list[Batch]:
        """This process's micro-batches of a step, a pure function of the arguments."""

    def bucket(self, sample: int) -> Hashable:
        """Key of a sample, by its place in the cache; samples of one key stack into a batch."""

    def state_dict(self) -> dict[str, Any]:
        """State other than the step that the batches depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with, or restore, `state_dict`'s."""


class CachedSource:
    """Batches drawn from a cache.

    Args:
        cache: The samples to draw from.
        task_weights: See `Sampler`.
        seed: Of all draws.
        global_batch: Samples of a step.
        accumulation: Micro-batches of a process in a step.
        group_size: Samples in a row that share a shape; None = global_batch / accumulation.
        text_only: Captions and latents alone; samples' references and contexts are left out.
        need_latents: Leave out samples without a real clip, and name them.
        skipped_file: File that lists every row left out; None = listed in the log.
        held_out: Clips whose samples are for validation and never in a batch.

    Attributes:
        empty_text: [1, L, D] the condition without a caption.
        held_out: Places in the cache of the samples for validation.
        encoding: Identifies what encoded the samples: models, sizes, number formats.
        skipped: Rows left out, each with its reason.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        task_weights: dict[str, float],
        seed: int,
        global_batch: int,
        accumulation: int,
        group_size: int | None = None,
        text_only: bool = False,
        need_latents: bool = False,
        skipped_file: Path | None = None,
        held_out: Collection[str] = (),
    ) -> None:
        self.cache, self.seed, self.text_only = cache, seed, text_only
        header = {name: value for name, value in cache.header.items() if name not in GROWING}
        self.encoding = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]
        self.global_batch, self.accumulation = global_batch, accumulation
        if global_batch % accumulation:
            raise ValueError(f"batch_size {global_batch} is not a multiple of accumulation {accumulation}")
        self.group_size = group_size or global_batch // accumulation
        if global_batch % self.group_size:
            raise ValueError(f"group_size {self.group_size} does not divide batch_size {global_batch}")
        self.skipped: list[Skipped] = list(cache.skipped)
        usable, clips = self._select(need_latents), frozenset(held_out)
        self.held_out = [sample for sample in usable if clip_of(self._info(sample)) in clips]
        validation = frozenset(self.held_out)
        self._usable = [sample for sample in usable if sample not in validation]
        self._name_skipped(skipped_file)
        cache.require_samples()
        self.sampler = Sampler(
            [self._info(i).task for i in self._usable],
            [self.bucket(i) for i in self._usable],
            task_weights,
            self.group_size,
            seed,
        )
        padded = cache.empty_text.new_zeros(1, cache.text_len, cache.empty_text.shape[-1])
        padded[0, : len(cache.empty_text)] = cache.empty_text
        self.empty_text: Tensor = padded.float()
        self._report()

    def micro_batch_size(self, rank: int = 0, world_size: int = 1) -> int:
        """Samples in one micro-batch of one process.

        Args:
            rank, world_size: The process.

        Raises:
            ValueError: The global batch cannot be divided so that every micro-batch has one shape.
        """
        micro = micro_batch_size(self.global_batch, self.accumulation, self.group_size, world_size)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
        return micro

    def batches(self, step: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
        """This process's micro-batches of a step, one for each accumulation step.

        Args:
            step: From 0.
            rank, world_size: The process's part of the global batch, which does not depend on them.

        Raises:
            ValueError: The global batch cannot be divided so that every micro-batch has one shape.
        """
        micro = self.micro_batch_size(rank, world_size)
        starts = ((number * world_size + rank) * micro for number in range(self.accumulation))
        return [self._batch(step, range(start, start + micro)) for start in starts]

    def state_dict(self) -> dict[str, Any]:
        """State other than the step that the batches depend on: the seed and the samples."""
        entries = [(info.id, info.task, info.shape) for _, info in self.cache.samples]
        named = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        return {"seed": self.seed, "samples": named, "content": self.cache.content}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Warn if the data changed since the run began."""
        own = self.state_dict()
        # Checkpoints of older versions do not know the content.
        if any(own.get(name) != value for name, value in state.items()):
            logger.warning(
                "the cache %s or the seed changed since the checkpoint: other batches follow",
                self.cache.folder,
            )

    def _info(self, sample: int) -> SampleInfo:
        return self.cache.samples[sample][1]

    def _select(self, need_latents: bool) -> list[int]:
        usable = []
        for sample, (_, info) in enumerate(self.cache.samples):
            if need_latents and not info.has_latents:
                reason = "it has no target_video_path, the real clip that the GAN needs"
                self.skipped.append(Skipped(info.id, str(self.cache.folder), "missing", reason))
            else:
                usable.append(sample)
        return usable

    def bucket(self, sample: int) -> tuple:
        """Key of a sample, by its place in the cache; samples of one key stack into a batch."""
        info = self._info(sample)
        if self.text_only:
            channels, length, *sides = info.shape
            return (channels, length - info.num_reference_latents, *sides), info.has_latents
        return info.shape, info.has_latents, info.num_reference_latents, info.num_contexts, info.context_scale

    def _batch(self, step: int, positions: range) -> Batch:
        groups_per_step = self.global_batch // self.group_size
        group, first = divmod(positions.start, self.group_size)
        group_samples = self.sampler.group(step * groups_per_step + group)[first : first + len(positions)]
        samples, shape = [], self._info(self._usable[group_samples[0]]).shape
        for position, number in zip(positions, group_samples, strict=True):
            sample = self._usable[number]
            info = self._info(sample)
            rng = np.random.default_rng([self.seed, CAPTIONS, step, position])
            caption = int(rng.integers(info.num_texts))
            samples.append(self.cache.read(sample, caption, contexts=not self.text_only))
        return collate(samples, shape, tuple(positions), self.cache.text_len)

    def _report(self) -> None:
        tasks = Counter(self._info(i).task for i in self._usable)
        buckets = Counter(map(self.bucket, self._usable))
        logger.info(
            "%d samples in %d shapes from %s: %s", len(self._usable), len(buckets), self.cache.folder,
            ", ".join(f"{task} {count}" for task, count in sorted(tasks.items())),
        )  # fmt: skip
        if self.held_out:
            num_clips = len({clip_of(self._info(sample)) for sample in self.held_out})
            logger.info("held out for validation: %d samples of %d clips", len(self.held_out), num_clips)

    def _name_skipped(self, file: Path | None) -> None:
        """Count the rows left out, name the first few, and all of them in a file or further lines."""
        if file is not None:
            # An earlier start may have left out others.
            file.unlink(missing_ok=True)
        if not self.skipped:
            return
        kinds = Counter(row.kind for row in self.skipped)
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines = [f"{row.kind}: {' '.join(str(row).split())}" for row in self.skipped]
        first = "; ".join(lines[:NUM_NAMED])
        if file is None:
            logger.warning("skipped %d rows: %s; the first: %s", len(lines), counted, first)
            # Only the first process logs messages below warnings.
            log_skipped(self.skipped[NUM_NAMED:], logging.INFO, self.cache.folder, NUM_NAMED)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="backslashreplace")
        logger.warning(
            "skipped %d rows: %s; all are named in %s, the first: %s", len(lines), counted, file, first
        )
