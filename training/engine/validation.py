"""Losses on held-out samples: of every kind of update, without gradients, with the same draws each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from ..data.source import Source
from ..distributed.world import World
from .config import RunConfig
from .draws import Draws
from .method import Method, prepare
from .progress import VALIDATION
from .samples import chosen, sample_batch

logger = logging.getLogger("vdot")
DRAWS_SEED = 0
TURNS = 2
"""Draws for each sample: of noise, noise levels and, in a distillation, of a rollout's length."""


class Validation:
    """A run's validation.

    Args:
        config: The run; `validation.samples` of the samples held out are used.
        method: Its networks and losses.
        source: Gives the samples.
        world: The processes.

    Raises:
        ValueError: No sample that could be used is held out.
    """

    def __init__(self, config: RunConfig, method: Method, source: Source, world: World) -> None:
        self.method, self.source, self.world = method, source, world
        infos = [source.cache.samples[number][1] for number in source.held_out]
        weights = config.data.task_weights
        picked = chosen(infos, weights, config.validation.samples, needs_latents=method.needs_latents)
        if not picked:
            raise ValueError(
                f"validation.every is {config.validation.every}, and none of the {len(infos)} samples held "
                "out is of a task that is trained on; raise validation.rows or fraction"
            )
        self.samples = [source.held_out[number] for number in picked]

    @torch.no_grad()
    def losses(self) -> dict[str, Tensor]:
        """Mean losses over the samples, the same on any number of processes; every process must call it.

        Returns:
            validation/<optimizer>/<name> -> scalar tensor.
        """
        begin, sums = time.monotonic(), {}
        updates, text_only = self.method.kinds_of_updates(), not self.method.sizes.vace_layers
        for group in groups(self.samples, self.source.bucket, self.world.size):
            # Sharded processes pass at once, through as many contexts; one without a sample repeats another.
            place, counts = group[self.world.rank]
            batch = sample_batch(self.source.cache, self.samples[place], place, text_only=text_only)
            for turn in range(TURNS):
                draws = Draws(DRAWS_SEED, turn, batch.positions)
                ready = prepare(batch, draws, self.method, self.world.device, drop=False)
                for update in updates:
                    losses = update.loss(ready, draws)
                    for name, value in (losses.metrics or {"loss": losses.total}).items():
                        key = f"{VALIDATION}{update.optimizer}/{name}"
                        sums[key] = sums.get(key, 0) + value.float() * counts
        total = self.world.sum(torch.stack(list(sums.values()))) / (TURNS * len(self.samples))
        logger.info("validated on %d samples, %.0f s", len(self.samples), time.monotonic() - begin)
        return dict(zip(sums, total, strict=True))


def groups(
    samples: Sequence[int], bucket: Callable[[int], Hashable], size: int
) -> list[list[tuple[int, bool]]]:
    """Cut samples into groups of one bucket with a sample for each process.

    Args:
        samples: Places in a cache.
        bucket: Place -> what samples share that pass at once.
        size: Number of processes.

    Returns:
        Groups of `size` pairs: a number in `samples`, and False where it repeats one that counts already.
    """
    buckets: dict[Hashable, list[int]] = {}
    for place, sample in enumerate(samples):
        buckets.setdefault(bucket(sample), []).append(place)
    cut = []
    for places in buckets.values():
        for first in range(0, len(places), size):
            own = [(place, True) for place in places[first : first + size]]
            cut.append(own + [(own[-1][0], False)] * (size - len(own)))
    return cut
