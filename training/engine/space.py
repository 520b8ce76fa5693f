"""Checks that a run's files fit on its disk, before hours of work that could not be saved."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vdot_core.memory import GIB
from vdot_core.text import shown

from ..distributed.environment import whole_number
from ..distributed.world import World
from .config import RunConfig

logger = logging.getLogger("vdot")


@dataclass(frozen=True)
class OutputBytes:
    """Sizes of the files that a run writes.

    Attributes:
        checkpoint: Of one checkpoint.
        export: Of the exported weights.
    """

    checkpoint: int
    export: int

    def needed(self, keep: int) -> int:
        """Bytes at the worst moment: a new checkpoint is complete before the oldest is removed."""
        return (keep + 1) * self.checkpoint + self.export


def check_space(config: RunConfig, sizes: OutputBytes) -> None:
    """Refuse a run whose checkpoints and export do not fit on the disk.

    Args:
        config: The run; what lies in its folder already is counted as there.
        sizes: Of its files.

    Raises:
        ValueError: The disk has too little space.
    """
    folder = Path(config.out_dir)
    free, needed = free_bytes(folder), sizes.needed(config.log.keep) - _written(folder)
    if needed > free:
        raise ValueError(
            f"{shown(folder, 120)} has {_size(free)} free, and this run writes {_size(needed)} more: "
            f"{config.log.keep} checkpoints of {_size(sizes.checkpoint)} (log.keep), one while it is "
            f"written, and an export of {_size(sizes.export)}; make space, lower log.keep, or give another "
            "out_dir"
        )


def check_host_memory(config: RunConfig, sizes: OutputBytes, world: World) -> None:
    """Warn where a node's CPU memory is less than offloaded states and the copy of a checkpoint take."""
    available = available_memory()
    local = whole_number("LOCAL_WORLD_SIZE") or world.size
    shards = world.size // config.parallel.hsdp_replicas if world.sharded else 1
    states = sizes.checkpoint * local // shards
    offloaded = states if config.parallel.cpu_offload else 0
    copy = states if config.log.asynchronous else 0
    if available is not None and offloaded + copy > available:
        logger.warning(
            "CPU memory: %s available, and this node takes %s for offloaded states and %s for the copy of a "
            "checkpoint that is written during training; log.asynchronous false needs no copy",
            _size(available), _size(offloaded), _size(copy),
        )  # fmt: skip


def available_memory() -> int | None:
    """Bytes of CPU memory that programs can get; None where the system does not say (other than Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is on, or will be on."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _written(folder: Path) -> int:
    """Bytes of the checkpoints and exports in a run's folder, which the coming ones replace."""
    total = 0
    for part in ("checkpoints", "export"):
        for place, _, names in os.walk(folder / part):
            total += sum((Path(place) / name).lstat().st_size for name in names)
    return total


def _size(count: int) -> str:
    return f"{max(count, 0) / GIB:.1f} GiB" if count >= GIB / 10 else f"{max(count, 0) / 2**20:.1f} MiB"
