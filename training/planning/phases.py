"""Estimates the time of a step from the passes of every update, averaged over the cycle of updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdot_core.networks import WanVaceConfig

from ..methods.vdot_config import DistillConfig, update_kinds
from .adapters import adapter_shapes
from .flops import PassFlops, pass_flops
from .workload import Clip, Workload


@dataclass(frozen=True)
class UpdateCost:
    """Cost of one update for one sample, averaged over the rollout's exit steps.

    Attributes:
        flops: Operations.
        passes: Times that a network's weights are gathered: forward, recomputed and backward passes.
    """

    flops: float
    passes: float

    def __add__(self, other: UpdateCost) -> UpdateCost:
        return UpdateCost(self.flops + other.flops, self.passes + other.passes)

    def __mul__(self, count: float) -> UpdateCost:
        return UpdateCost(self.flops * count, self.passes * count)


def update_costs(network: WanVaceConfig, clip: Clip, config: DistillConfig) -> dict[str, UpdateCost]:
    """Cost of every kind of update, per sample; arguments as of `costs_of`, for the workload of a clip."""
    return costs_of(network, Workload.of(network, clip), config)


def costs_of(network: WanVaceConfig, work: Workload, config: DistillConfig) -> dict[str, UpdateCost]:
    """Cost of every kind of update, per sample.

    Args:
        network: Sizes of the transformers.
        work: One forward pass of one sample.
        config: The run.

    Returns:
        Name of the update in `training/methods/vdot.py` -> cost.
    """
    one, losses, adapters = pass_flops(network, work), config.losses, config.model.adapters
    # Groups of any size are recomputed once in the backward pass.
    recomputed = 1 if config.parallel.checkpoint_every else 0
    # Each number of an adapter meets each token once in a forward pass.
    change = 2 * work.tokens * sum(map(math.prod, adapter_shapes(network, adapters)))

    def forward(role: str) -> UpdateCost:
        return UpdateCost(one.forward + change * adapters.adapts(role), 1)

    def backward(role: str, trained: bool = True) -> UpdateCost:
        """A backward pass, with the rerun of recomputed blocks."""
        adapted = adapters.adapts(role)
        flops = one.backward(trained and not adapted) + adapted * (2 if trained else 1) * change
        return UpdateCost(flops, 1) + forward(role) * recomputed

    def graph(role: str, trained: bool = True) -> UpdateCost:
        return forward(role) + backward(role, trained)

    before_exit = (config.rollout.steps - 1) / 2  # the exit step is uniform
    rollout, exit_graph = forward("generator") * before_exit, graph("generator")
    real_score, fake = forward("real_score") * (2 if losses.guides else 1), forward("fake_score")
    evaluations = 1 if losses.shared_scores else int(losses.otd) + int(losses.dmd)
    matching = rollout + exit_graph + (fake + real_score) * evaluations
    if losses.otd and losses.otd_through == "xt":
        # The rerun passes through weights that are gathered for the backward pass anyway.
        again = backward("fake_score", trained=False)
        matching = matching + UpdateCost(again.flops, 1)
    looks, judged = 2 + (losses.r1 > 0) + (losses.r2 > 0), graph("fake_score")
    sample = rollout + forward("generator")
    return {
        "generator_matching": matching,
        "generator_gan": rollout + exit_graph + fake + graph("fake_score", trained=False),
        "critic_matching": sample + graph("fake_score"),
        "critic_gan": sample + (judged if losses.gan_trains_score else fake) * looks,
    }


def counted_steps(config: DistillConfig) -> dict[str, float]:
    """Updates of each kind per step, averaged over a cycle."""
    cycle = 2 * config.optim.generator_every
    counts: dict[str, float] = {}
    for step in range(cycle):
        for kind in update_kinds(config, step):
            counts[kind] = counts.get(kind, 0) + 1 / cycle
    return counts


@dataclass(frozen=True)
class StepTime:
    """Seconds of an average step.

    Attributes:
        compute: Matrix products, at the stated utilization.
        communication: Gathering weights and reducing gradients, without overlap.
        offload: Copies to and from CPU memory, and the optimizer there.
    """

    compute: float
    communication: float
    offload: float

    @property
    def total(self) -> float:
        """Computing hides communication up to its own length; copies to the CPU are not hidden."""
        return max(self.compute, self.communication) + self.offload


@dataclass(frozen=True)
class Rates:
    """Assumed hardware rates; replace them by measured ones.

    Attributes:
        tflops: Peak of dense bf16 products, 1e12 operations a second.
        utilization: Share of it that training reaches.
        interconnect_gb_s: Between GPUs, per GPU and direction, collectives included.
        host_gb_s: From GPU to CPU memory, per GPU.
        host_memory_gb_s: CPU memory of a node, which its optimizer reads and writes.
    """

    tflops: float = 989.0
    utilization: float = 0.4
    interconnect_gb_s: float = 200.0
    host_gb_s: float = 40.0
    host_memory_gb_s: float = 250.0


def step_time(
    network: WanVaceConfig,
    clip: Clip,
    config: DistillConfig,
    rates: Rates,
    *,
    samples: int,
    parameters: int,
    shards: int,
    processes: int,
    gpus_per_node: int,
) -> StepTime:
    """Seconds of an average step of the cycle.

    Args:
        network: sizes of the transformers.
        clip: what a sample is.
        config: the run.
        rates: of the hardware.
        samples: that one GPU sees in a step, over all its micro-batches.
        parameters: of one transformer.
        shards: GPUs that share one copy.
        processes: all GPUs.
        gpus_per_node: GPUs that share one CPU's memory.

    Returns:
        The parts.
    """
    costs, counts = update_costs(network, clip, config), counted_steps(config)
    average = UpdateCost(0.0, 0.0)
    for name, count in counts.items():
        average = average + costs[name] * count
    compute = average.flops * samples / (rates.tflops * 1e12 * rates.utilization)
    batches = min(samples, config.data.accumulation)
    moved = average.passes * batches * 2 * parameters * (shards - 1) / shards
    communication = moved / (rates.interconnect_gb_s * 1e9) if processes > 1 else 0.0
    if not config.parallel.cpu_offload:
        return StepTime(compute, communication, 0.0)
    copied = average.passes * batches * 4 * parameters / shards / (rates.host_gb_s * 1e9)
    # AdamW without a fused kernel reads or writes each parameter's numbers about 14 times; the search for
    # 8-bit codes goes through 64-bit integers, eight times over.
    passes = 14 if config.optim.state_bits == 32 else 175
    updates = sum(counts.values()) * passes * 4 * parameters / shards * min(gpus_per_node, processes)
    return StepTime(compute, communication, copied + updates / (rates.host_memory_gb_s * 1e9))


def sample_flops(network: WanVaceConfig, clip: Clip) -> PassFlops:
    """Operations of one forward pass over one sample."""
    return pass_flops(network, Workload.of(network, clip))
