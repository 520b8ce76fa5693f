"""Finds changes of settings, or a number of GPUs, with which a run fits."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..methods.vdot_config import DistillConfig
from .budget import Budget


@dataclass(frozen=True)
class Option:
    """A change that saves memory.

    Attributes:
        words: As it is typed after the command.
        exact: True if the training result stays the same.
        section, key, value: The field and its new value.
    """

    words: str
    exact: bool
    section: str
    key: str
    value: object = field(compare=False)  # a list has no hash

    def applied(self, config: DistillConfig) -> DistillConfig:
        """The configuration with the change."""
        section = dataclasses.replace(getattr(config, self.section), **{self.key: self.value})
        return dataclasses.replace(config, **{self.section: section})


def smallest_checkpoint_every(
    config: DistillConfig, rebuild: Callable[[DistillConfig], Budget], most: int = 8
) -> int:
    """The size of recomputed groups with which the run takes least; the smaller one where two take as much.

    Small groups keep more inputs, large ones more of what they recompute: it depends on the network and on
    how many graphs live at once. Time is the same.

    Args:
        config: the run.
        rebuild: the budget of a changed configuration on the same machine.
        most: the largest size that is tried.

    Returns:
        Blocks of a group.
    """

    def needed(size: int) -> float:
        parallel = dataclasses.replace(config.parallel, checkpoint_every=size)
        return rebuild(dataclasses.replace(config, parallel=parallel)).total

    return min(range(1, most + 1), key=needed)


def options(config: DistillConfig, gpus: int, checkpoint_every: int) -> list[Option]:
    """The changes that a configuration leaves open.

    Args:
        config: the run.
        gpus: number of them.
        checkpoint_every: the groups that take least.

    Returns:
        The changes.
    """
    parallel, losses = config.parallel, config.losses
    most = max(1, config.data.batch_size // gpus)  # micro-batches of one sample
    candidates = [
        (
            parallel.checkpoint_every != checkpoint_every,
            True,
            "parallel",
            "checkpoint_every",
            checkpoint_every,
        ),
        (config.data.accumulation < most, True, "data", "accumulation", most),
        (parallel.fsdp is False and gpus > 1, True, "parallel", "fsdp", "auto"),
        (not parallel.shards(gpus) and gpus == 1, True, "parallel", "fsdp", True),
        (parallel.hsdp_replicas > 1, True, "parallel", "hsdp_replicas", 1),
        (losses.batch_guidance and losses.guides, True, "losses", "batch_guidance", False),
        (not parallel.cpu_offload, True, "parallel", "cpu_offload", True),
        (losses.otd and losses.otd_through == "xt", False, "losses", "otd_through", "prediction"),
        (config.optim.state_bits == 32, False, "optim", "state_bits", 8),
        (losses.gan and losses.gan_trains_score, False, "losses", "gan_trains_score", False),
        (config.data.num_frames > 49, False, "data", "num_frames", 49),
    ]
    adapters, further = config.model.adapters, []
    if adapters.rank and adapters.base == "bf16" and not parallel.shards(gpus):
        packed = dataclasses.replace(adapters, base="fp8")
        further = [Option("--model.adapters.base fp8", False, "model", "adapters", packed)]
    return further + [
        Option(f"--{section}.{key} {str(value).lower()}", exact, section, key, value)
        for open_, exact, section, key, value in candidates
        if open_ and not (key == "accumulation" and config.data.batch_size % value)
    ]


@dataclass(frozen=True)
class Remedy:
    """A set of changes with which a run fits; no part of it does alone."""

    options: tuple[Option, ...]
    budget: Budget

    @property
    def exact(self) -> bool:
        """True if the training result stays the same."""
        return all(option.exact for option in self.options)


def _changed(
    config: DistillConfig, changes: Sequence[Option], rebuild: Callable[[DistillConfig], Budget]
) -> Budget | None:
    """The budget with the changes; None where one needs another, as offloading needs shards."""
    try:
        for option in changes:
            config = option.applied(config)
        return rebuild(config)
    except ValueError:
        return None


def remedies(budget: Budget, rebuild: Callable[[DistillConfig], Budget]) -> list[Remedy]:
    """Search all sets of changes for the smallest that fit.

    Args:
        budget: of the run as it stands.
        rebuild: the budget of a changed configuration on the same machine.

    Returns:
        Sets that fit, exact ones first, then the fastest.
    """
    results: list[Remedy] = []
    every = smallest_checkpoint_every(budget.config, rebuild)
    open_ = options(budget.config, budget.machine.gpus, every)
    for count in range(1, len(open_) + 1):
        for combination in itertools.combinations(open_, count):
            if any(set(remedy.options) <= set(combination) for remedy in results):
                continue
            changed = _changed(budget.config, combination, rebuild)
            if changed and changed.fits:
                results.append(Remedy(combination, changed))
    return sorted(results, key=lambda remedy: (not remedy.exact, remedy.budget.time.total))


@dataclass(frozen=True)
class Cluster:
    """GPUs on which a run fits with nothing offloaded.

    Attributes:
        gpus: number of them.
        checkpoint_every: Blocks of a recomputed group.
    """

    gpus: int
    checkpoint_every: int


def enough_gpus(
    budget: Budget, rebuild: Callable[[DistillConfig, int], Budget], most: int = 512
) -> Cluster | None:
    """The smallest number of GPUs, in full nodes, that needs no offload; every block recomputed.

    Args:
        budget: of the run as it stands.
        rebuild: the budget of a configuration on a number of GPUs of the same kind.
        most: where to stop.

    Returns:
        The number, and the groups to recompute; None where not even `most` are enough, or where the
        networks cannot be sharded.
    """
    if budget.config.model.adapters.base != "bf16":
        return None
    node = min(budget.machine.gpus, budget.machine.gpus_per_node)
    plain = dataclasses.replace(
        budget.config.parallel, checkpoint_every=1, cpu_offload=False, hsdp_replicas=1, fsdp="auto"
    )
    config = dataclasses.replace(budget.config, parallel=plain)
    for gpus in range(node, most + 1, node):
        every = smallest_checkpoint_every(config, lambda changed, gpus=gpus: rebuild(changed, gpus))
        parallel = dataclasses.replace(plain, checkpoint_every=every)
        if rebuild(dataclasses.replace(config, parallel=parallel), gpus).fits:
            return Cluster(gpus, every)
    return None
