"""The machine that a plan is made for, as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..data.checks import require
from .budget import Machine
from .phases import Rates


@dataclass(frozen=True)
class PlanOptions:
    """Options of --plan.

    Attributes:
        gpus: Number of GPUs.
        memory: GiB of memory of each GPU: nvidia-smi's MiB divided by 1024.
        gpus_per_node: GPUs that share one CPU's memory.
        references: Reference images of a sample.
        contexts: Contexts of a sample that are not merged.
        tflops: Peak of dense bf16 matrix products, 1e12 operations a second.
        utilization: Share of the peak that training reaches, 0 to 1.
        interconnect: Bandwidth between GPUs, GB/s per GPU and direction.
        host: Bandwidth from GPU to CPU memory, GB/s per GPU, for offloaded states.
        host_memory: Bandwidth of a node's CPU memory, GB/s, for an offloaded optimizer.
    """

    gpus: int = Machine.gpus
    memory: float = Machine.memory_gib
    gpus_per_node: int = Machine.gpus_per_node
    references: int = 0
    contexts: int = 1
    tflops: float = Rates.tflops
    utilization: float = Rates.utilization
    interconnect: float = Rates.interconnect_gb_s
    host: float = Rates.host_gb_s
    host_memory: float = Rates.host_memory_gb_s

    def __post_init__(self) -> None:
        for name, least in (("gpus", 1), ("gpus_per_node", 1), ("references", 0), ("contexts", 0)):
            value = getattr(self, name)
            require(value >= least, f"--{name} is {value}; expected {least} or more")
        for name in ("memory", "tflops", "utilization", "interconnect", "host", "host_memory"):
            value = getattr(self, name)
            require(value > 0, f"--{name} is {value:g}; expected above 0")
        require(self.utilization <= 1, f"--utilization is {self.utilization:g}; expected a share, at most 1")

    def arguments(self) -> PlanArguments:
        """The machine and the sample that they describe."""
        rates = Rates(self.tflops, self.utilization, self.interconnect, self.host, self.host_memory)
        machine = Machine(self.gpus, self.memory, self.gpus_per_node, rates)
        return PlanArguments(machine, self.references, self.contexts)


@dataclass(frozen=True)
class PlanArguments:
    """Machine and sample of a plan.

    Attributes:
        machine: The GPUs.
        references: Reference images of a sample.
        contexts: Contexts of a sample that are not merged into one.
    """

    machine: Machine = field(default_factory=Machine)
    references: int = 0
    contexts: int = 1


def read_options(values: Any) -> PlanArguments:
    """The plan's arguments among a command line's parsed values."""
    names = [option.name for option in fields(PlanOptions)]
    return PlanOptions(**{name: getattr(values, name) for name in names}).arguments()
