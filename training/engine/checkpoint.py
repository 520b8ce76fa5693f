"""Checkpoints of a whole run, by torch.distributed.checkpoint: written aside, moved into place when complete.

A process killed at any moment leaves the last complete checkpoint as it was. What is read may be spread over
another number of processes than what was written.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from ..distributed.world import World

logger = logging.getLogger("vdot")
# One process alone saves and loads without a process group on purpose.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
PREFIX, PARTIAL, PROGRESS = "step-", ".partial-", "progress.json"


@dataclass(frozen=True)
class Found:
    """A complete checkpoint."""

    path: Path
    step: int


def complete(folder: str | Path) -> list[Found]:
    """The complete checkpoints of a run, oldest first.

    Args:
        folder: The run's folder of checkpoints.
    """
    folder = Path(folder)
    names = sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else []
    return [Found(path, int(path.name[len(PREFIX) :])) for path in names if (path / PROGRESS).is_file()]


class Checkpoints:
    """The folder of a run's checkpoints.

    Args:
        folder: Where they lie.
        world: The processes that write together.
        keep: How many of the newest stay.
        asynchronous: Write while training continues.
        files: Files of this process's part, of about equal size.

    Raises:
        ValueError: the folder is not the same on every process, as one on each node's own disk.
    """

    def __init__(
        self, folder: str | Path, world: World, *, keep: int, asynchronous: bool, files: int = 1
    ) -> None:
        self.folder, self.world, self.keep, self.files = Path(folder), world, keep, files
        # A group of its own: the writing thread's collectives must not mix with training's.
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.asynchronous, self.writer = asynchronous, ThreadPoolExecutor(1)
        self.pending: tuple[Future, Path, int, dict[str, Any]] | None = None
        if world.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover)
        self._check_shared()

    def _check_shared(self) -> None:
        """A part that another process cannot see would make a checkpoint that looks complete and is not."""
        mark = self.folder / f".shared-{self.world.gather(secrets.token_hex(8))[0]}"
        if self.world.rank == 0:
            mark.touch()
        self.world.barrier()
        seen = self.world.gather((socket.gethostname(), mark.is_file()))
        if self.world.rank == 0:
            mark.unlink()
        if blind := [f"{rank} on {host}" for rank, (host, found) in enumerate(seen) if not found]:
            raise ValueError(
                f"{self.folder.resolve()} is another folder for process {', '.join(blind)} than for process "
                f"0 on {seen[0][0]}; give an out_dir on storage that all nodes share"
            )

    @property
    def newest(self) -> Found | None:
        """The last complete checkpoint."""
        found = complete(self.folder)
        return found[-1] if found else None

    def save(self, step: int, tensors: dict[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint; an earlier one that is still being written is waited for.

        Args:
            step: Steps that are done.
            tensors: Name -> tensor, sharded ones each process with its part.
            progress: Plain values, for a JSON file.
        """
        self.wait()
        folder = self.folder / f"{PARTIAL}{step:08d}"
        write = partial(
            dcp.save,
            storage_writer=dcp.FileSystemWriter(folder, thread_count=self.files),
            process_group=self.group,
        )
        progress = {**progress, "step": step}
        if self.asynchronous:
            # Training may change the tensors at once. torch's own async_save copies none that are on the CPU
            # already before 2.7, such as offloaded ones.
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            self.pending = (self.writer.submit(write, copies), folder, step, progress)
        else:
            write(tensors)
            self._finish(folder, step, progress)

    def poll(self) -> None:
        """Put a checkpoint in place if every process is done writing it."""
        if self.pending is not None and self.world.rank == 0 and self.pending[0].done():
            self._complete_pending()

    def wait(self) -> None:
        """Until the last checkpoint is complete, on every process."""
        if self.pending is not None:
            self._complete_pending()
        self.world.barrier()

    def _complete_pending(self) -> None:
        future, partial, step, progress = self.pending
        self.pending = None
        # The coordinator's part ends only when all have written, and the metadata, last, says so.
        future.result()
        self._finish(partial, step, progress)

    def _finish(self, partial: Path, step: int, progress: Mapping[str, Any]) -> None:
        if self.world.rank != 0:
            return
        (partial / PROGRESS).write_text(json.dumps(progress, indent=1))
        _sync(partial / PROGRESS)
        final = self.folder / f"{PREFIX}{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
        _sync(self.folder)
        logger.info("checkpoint %s", final)
        for old in complete(self.folder)[: -self.keep]:
            shutil.rmtree(old.path)

    def load(self, found: Found, tensors: dict[str, Tensor]) -> None:
        """Read a checkpoint into tensors, in place, whatever they were spread over when it was written.

        Args:
            found: Which.
            tensors: As given to `save`.

        Raises:
            ValueError: the checkpoint is of other networks.
        """
        try:
            reader = dcp.FileSystemReader(found.path)
            dcp.load(tensors, storage_reader=reader, process_group=self.group)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{found.path} does not fit this run; give the configuration it was made with, or another "
                f"out_dir: {error}"
            ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_progress(found: Found) -> dict[str, Any]:
    """The plain values of a checkpoint."""
    return json.loads((found.path / PROGRESS).read_text())


def read_tensors(found: Found, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Whole tensors of a checkpoint whose names begin so, read by this process alone.

    Args:
        found: Which checkpoint.
        prefix: Beginning of the names, cut off in what is yielded.

    Yields:
        (name, tensor on the CPU).
    """
    reader = dcp.FileSystemReader(found.path)
    metadata = reader.read_metadata()
    wanted = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if name.startswith(prefix)
    }
    # dcp.load would wait for the other processes of a group; torch 2.6 knows no option against it.
    planner = dcp.DefaultLoadPlanner()
    planner.set_up_planner(wanted, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    plan = reader.prepare_local_plan(planner.create_local_plan())
    (plan,) = reader.prepare_global_plan(planner.create_global_plan([plan]))
    reader.read_data(planner.finish_plan(plan), planner).wait()
    for name, tensor in wanted.items():
        yield name[len(prefix) :], tensor
