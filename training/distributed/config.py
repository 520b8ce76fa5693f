"""Settings of the processes: sharding, precision, and memory traded for time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..data.checks import require, require_range


@dataclass(frozen=True)
class ParallelConfig:
    """Sharding, precision and memory settings.

    Attributes:
        fsdp: Shard parameters over the processes: auto (when there are several), true or false (replicate).
        hsdp_replicas: Groups of processes that each hold the full model; 1: sharded over all.
        checkpoint_every: Blocks of a group that keeps only its input and runs again; 1: each block, 0: off.
        compile: Compile the blocks with torch.compile.
        cpu_offload: Keep sharded parameters, gradients and optimizer states in CPU memory.
        precision: bf16 (fp32 master weights and reductions), fp32, or auto: bf16 where the device has it in
            hardware.
        device: auto, cpu or cuda.
        threads: CPU threads of a process; 0: torch's own choice.
        timeout_s: Seconds after which a collective that a lost process left hanging ends the job.
    """

    fsdp: bool | Literal["auto"] = "auto"
    hsdp_replicas: int = 1
    checkpoint_every: int = 4
    compile: bool = False
    cpu_offload: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    timeout_s: int = 1800

    def __post_init__(self) -> None:
        for name, least in (("hsdp_replicas", 1), ("checkpoint_every", 0), ("threads", 0), ("timeout_s", 1)):
            value = getattr(self, name)
            require(value >= least, f"parallel.{name} is {value}; expected {least} or more")
        require_range(self, "parallel.", 0, 1024, "threads")
        require_range(self, "parallel.", 1, 10_000_000, "timeout_s")
        for name, without in (("cpu_offload", False), ("hsdp_replicas", 1)):
            require(
                self.fsdp is not False or getattr(self, name) == without,
                f"parallel.{name} is {str(getattr(self, name)).lower()} and parallel.fsdp false, which "
                f"ignores it; set fsdp auto, or {name} {str(without).lower()}",
            )

    def check(self, processes: int) -> None:
        """Refuse, by ValueError, settings that do not fit the number of processes."""
        if self.cpu_offload and not self.shards(processes):
            raise ValueError(
                "parallel.cpu_offload is true, and one process with parallel.fsdp auto shards nothing and "
                "ignores it; set fsdp true, or cpu_offload false"
            )
        if processes % self.hsdp_replicas:
            raise ValueError(
                f"parallel.hsdp_replicas is {self.hsdp_replicas}; it must divide {processes} processes (GPUs)"
            )

    def shards(self, processes: int) -> bool:
        """True if FSDP shards the networks of a run on this number of processes."""
        return processes > 1 if self.fsdp == "auto" else self.fsdp
