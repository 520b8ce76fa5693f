"""One process or many: the process group, sharding by FSDP2, and the few collectives that training needs.

Alone, nothing of torch.distributed is started and every collective is the identity.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from vdot_core.networks import WanVace

from .config import ParallelConfig
from .environment import place, whole_number
from .precision import uses_bf16

logger = logging.getLogger("vdot")


@dataclass(frozen=True)
class World:
    """This process's place among the others.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Its device.
        mesh: Over which parameters are sharded; None: replicated.
        precision: fp32 or bf16.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None
    precision: str

    @property
    def sharded(self) -> bool:
        return self.mesh is not None

    def autocast(self) -> AbstractContextManager:
        """Autocast for replicated fp32 weights in bf16 runs; opened around a single network call.

        Its cache of converted weights must not outlive a call: what was cached without gradients would stay
        without them.
        """
        if self.precision == "bf16" and not self.sharded:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, good: Tensor, asked: bool) -> tuple[bool, bool]:
        """Two flags at once, because this waits for the device and for the other processes.

        Args:
            good: A boolean scalar.
            asked: Any flag of this process.

        Returns:
            True if `good` is on every process; True if `asked` is on some process.
        """
        flags = torch.stack([~good, torch.tensor(asked).to(good.device, non_blocking=True)])
        bad, asked_by = self.sum(flags.float().to(self.device)).tolist()
        return bad == 0, asked_by > 0

    def gather(self, value: Any) -> list[Any]:
        """A small object from every process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def start(config: ParallelConfig) -> World:
    """Join torchrun's processes, if there are any, and say where this one computes.

    Args:
        config: Sharding and precision.

    Returns:
        This process's place.

    Raises:
        ValueError: CUDA is asked for and absent, the processes do not divide into the replicas, or states are
            to be offloaded that are not sharded.
    """
    rank, size = place()
    device = _device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    config.check(size)
    sharded = config.shards(size)
    if size > 1 or sharded:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # An HSDP-less single process needs no rendezvous: its store lives in memory.
        store = dist.HashStore() if size == 1 else None
        dist.init_process_group(
            backend,
            store=store,
            rank=rank if store else -1,
            world_size=1 if store else -1,
            timeout=timedelta(seconds=config.timeout_s),
        )
    mesh = None
    if sharded:
        sizes, names = (size,), ("shard",)
        if config.hsdp_replicas > 1:
            sizes, names = (config.hsdp_replicas, size // config.hsdp_replicas), ("replicate", "shard")
        mesh = init_device_mesh(device.type, sizes, mesh_dim_names=names)
    precision = "bf16" if uses_bf16(config.precision, device, "parallel.precision") else "fp32"
    return World(rank, size, device, mesh, precision)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("parallel.device is cuda, and torch sees no CUDA device; set it to cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", whole_number("LOCAL_RANK") or 0)
    torch.cuda.set_device(device)
    return device


def compile_blocks(network: WanVace) -> None:
    """Compile a network's blocks in place, each for itself; names of parameters stay."""
    # Shapes of several tasks and VACE blocks of two kinds are more graphs than torch keeps of one module.
    torch._dynamo.config.cache_size_limit = 64
    for block in (*network.blocks, *getattr(network, "vace_blocks", ())):
        block.compile()


def shard(module: nn.Module, world: World, config: ParallelConfig) -> nn.Module:
    """Compile and shard a module that may be on the meta device, in place.

    Each block of a `WanVace` is a separate FSDP unit; the two patch embeddings stay float32, as in Wan.

    Args:
        module: A `WanVace`, or a small module that becomes one unit in float32.
        world: Over whom.
        config: Compilation and sharding.

    Returns:
        The module, with `DTensor` parameters if the world is sharded.
    """
    blocks = [*module.blocks, *getattr(module, "vace_blocks", ())] if isinstance(module, WanVace) else []
    if config.compile and blocks:
        compile_blocks(module)
    if not world.sharded:
        return module
    half = torch.bfloat16 if world.precision == "bf16" else None
    # Timesteps would lose precision in bf16: the network converts its inputs itself.
    exact = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    mixed = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    offload = CPUOffloadPolicy() if config.cpu_offload else OffloadPolicy()
    # Always resharded: whether weights are trained changes between updates; an unsharded unit would miss it.
    unit = partial(fully_shard, mesh=world.mesh, reshard_after_forward=True, offload_policy=offload)
    if not blocks:
        return unit(module, mp_policy=exact)
    for name in ("patch_embedding", "vace_patch_embedding"):
        if hasattr(module, name):
            unit(getattr(module, name), mp_policy=exact)
    for block in blocks:
        unit(block, mp_policy=mixed)
    return unit(module, mp_policy=mixed)


def average_gradients(parameters: Iterable[Tensor], world: World) -> None:
    """Replicated training: every process gets the mean gradient; sharded weights have theirs already."""
    if world.size == 1 or world.sharded:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size
