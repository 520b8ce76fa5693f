"""The memory and time budget of a run on a machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from vdot_core.memory import GIB
from vdot_core.networks import WanVaceConfig

from ..engine.weight_only import check_unsharded
from ..methods.vdot_config import DistillConfig
from .memory import (
    CUDA_CONTEXT,
    EIGHT_BIT_STEP,
    FRAGMENTATION,
    Peak,
    States,
    gather_bytes,
    peaks,
    states,
)
from .phases import Rates, StepTime, step_time
from .sizes import Sizes
from .workload import Clip


@dataclass(frozen=True)
class Machine:
    """The GPUs that a run is planned for.

    Attributes:
        gpus: Number of them.
        memory_gib: Memory of each in GiB, nvidia-smi's MiB by 1024: 140 of an H200 (143771 MiB), 79.6 of an
            H100 (81559 MiB).
        gpus_per_node: GPUs that share one CPU's memory.
        rates: Speeds.
    """

    gpus: int = 4
    memory_gib: float = 140.0
    gpus_per_node: int = 8
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True)
class Budget:
    """Memory of a run on each GPU, in bytes.

    Attributes:
        config: The run.
        network: Sizes of its transformers.
        clip: The sample planned for.
        machine: The GPUs.
        sizes: Numbers of parameters.
        shards: GPUs that share one copy of the states.
        micro_batch: Samples of one micro-batch on one GPU.
        states: Persistent components, one unsharded copy each.
        peaks: The kinds of update.
        gathered: Unsharded weights and gradients of the running blocks.
        time: Of a step.
    """

    config: DistillConfig
    network: WanVaceConfig
    clip: Clip
    machine: Machine
    sizes: Sizes
    shards: int
    micro_batch: int
    states: States
    peaks: tuple[Peak, ...]
    gathered: int
    time: StepTime

    @property
    def offloaded(self) -> bool:
        """True if states are in CPU memory; only sharded ones are, or `ParallelConfig.check` refuses."""
        return self.config.parallel.cpu_offload

    @property
    def batch(self) -> int:
        """Samples of a step as planned: `data.batch_size`, where GPUs and accumulation divide it."""
        return self.micro_batch * self.config.data.accumulation * self.machine.gpus

    @property
    def resident(self) -> float:
        """Bytes of states on a GPU."""
        return 0.0 if self.offloaded else self.states.total / self.shards

    @property
    def host(self) -> float:
        """Bytes in one node's CPU memory: offloaded states, and the copy an asynchronous checkpoint needs."""
        on_node = min(self.machine.gpus, self.machine.gpus_per_node)
        states = self.states.total / self.shards * on_node if self.offloaded else 0.0
        return states + self.staged

    @property
    def staged(self) -> float:
        """Bytes of one node's part of a checkpoint, which is copied before it is written during training."""
        on_node = min(self.machine.gpus, self.machine.gpus_per_node)
        return self.states.saved / self.shards * on_node if self.config.log.asynchronous else 0.0

    @property
    def optimizer(self) -> float:
        """Working memory of an optimizer step in bytes: the roots of all second moments at once, or,
        of moments in 8 bits, the work on the largest weight."""
        eight_bit = self.config.optim.state_bits == 8
        work = EIGHT_BIT_STEP * self.sizes.largest if eight_bit else self.states.gradients
        return 0.0 if self.offloaded else work / self.shards

    @property
    def worst(self) -> Peak:
        """The update that takes most."""
        return max(self.peaks, key=lambda peak: peak.total)

    @property
    def overhead(self) -> float:
        """Context of the process and the allocator's gaps."""
        return CUDA_CONTEXT + FRAGMENTATION * (self.worst.total + self.gathered)

    @property
    def total(self) -> float:
        """Bytes that a GPU needs at the worst moment."""
        return self.resident + max(self.worst.total + self.gathered, self.optimizer) + self.overhead

    @property
    def fits(self) -> bool:
        """True if a GPU has this memory."""
        return self.total <= self.machine.memory_gib * GIB


def make_budget(config: DistillConfig, network: WanVaceConfig, clip: Clip, machine: Machine) -> Budget:
    """Estimate the budget of a run.

    Args:
        config: the run.
        network: sizes of its transformers.
        clip: the largest sample it sees.
        machine: the GPUs.

    Returns:
        The budget.

    Raises:
        ValueError: the GPUs do not fit `config.parallel`, or networks are sharded that cannot be.
    """
    config.parallel.check(machine.gpus)
    shards = machine.gpus // config.parallel.hsdp_replicas if config.parallel.shards(machine.gpus) else 1
    check_unsharded(config.model.adapters.base, config.parallel.shards(machine.gpus))
    sizes = Sizes.of(network, config)
    per_gpu = max(1.0, config.data.batch_size / machine.gpus)
    micro_batch = max(1, round(per_gpu / config.data.accumulation))
    samples = micro_batch * config.data.accumulation
    time = step_time(
        network, clip, config, machine.rates, samples=samples, parameters=sizes.network,
        shards=shards, processes=machine.gpus, gpus_per_node=machine.gpus_per_node,
    )  # fmt: skip
    return Budget(
        config, network, clip, machine, sizes, shards, micro_batch, states(sizes, config, shards),
        tuple(peaks(network, clip, micro_batch, config)), gather_bytes(sizes, config, shards), time,
    )  # fmt: skip
