"""Checkpoints of a run, by torch.distributed.checkpoint: written to a temporary folder, then renamed.

A process killed at any moment leaves the last complete checkpoint as it was. The folder is to be locked
(`lock.py`): what an earlier run left unfinished is removed at the start. A checkpoint
can be read by another number of processes than wrote it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from vdot_core.files import sync
from vdot_core.text import shown

from ..distributed.world import World
from .damage import FILES, PROGRESS, damage, misfit, read_progress_file
from .files import write_json
from .hashes import altered
from .metadata import Reader
from .writing import first_line, named, remove, write

logger = logging.getLogger("vdot")
# One process alone saves and loads without a process group on purpose.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
PREFIX, PARTIAL = "step-", ".partial-"
Check = Callable[["SavedStep", dict[str, Any]], str | None]


@dataclass(frozen=True)
class SavedStep:
    """A checkpoint."""

    path: Path
    step: int


def numbered(folder: str | Path) -> list[SavedStep]:
    """All checkpoints of a run, oldest first, damaged ones too.

    Args:
        folder: The run's folder of checkpoints.
    """
    steps = ((path, path.name[len(PREFIX) :]) for path in Path(folder).glob(f"{PREFIX}*"))
    checkpoints = (SavedStep(path, int(step)) for path, step in steps if step.isdecimal() and path.is_dir())
    return sorted(checkpoints, key=lambda one: one.step)


def complete(folder: str | Path) -> list[SavedStep]:
    """The checkpoints of a run that are not damaged, oldest first; arguments as `numbered`."""
    return [checkpoint for checkpoint in numbered(folder) if damage(checkpoint.path) is None]


def newest_complete(folder: str | Path) -> SavedStep | None:
    """The last of `complete`, None where there is none; damaged ones that are newer are named in the log."""
    checkpoints = numbered(folder)
    for checkpoint in reversed(checkpoints):
        try:
            path = checkpoint.path
            reason = damage(path) or altered(path, read_progress(checkpoint).get(FILES, {}))
        except ValueError as error:  # it is being removed
            reason = shown(error, 200)
        if reason is None:
            return checkpoint
        if numbered(folder)[-1:] != checkpoints[-1:]:
            return newest_complete(folder)  # a run that trains has replaced them meanwhile
        logger.warning("%s is damaged: %s; taking the checkpoint before it", checkpoint.path, reason)
    return None


class Checkpoints:
    """The folder of a run's checkpoints.

    Args:
        folder: Where they lie, locked by this run.
        world: The processes that write together.
        keep: Number of newest checkpoints to keep.
        asynchronous: Write while training continues.
        files: Files of this process's part, of about equal size.

    Raises:
        ValueError: the folder is not the same on every process, as one on each node's own disk.
    """

    def __init__(
        self, folder: str | Path, world: World, *, keep: int, asynchronous: bool, files: int = 1
    ) -> None:
        self.folder, self.world, self.keep, self.files = Path(folder), world, keep, files
        # A separate group: the writing thread's collectives must not mix with training's.
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.asynchronous, self.writer = asynchronous, ThreadPoolExecutor(1)
        self.pending: tuple[Future, Path, int, dict[str, Any]] | None = None
        # Part of the names of unfinished checkpoints, so that two runs never write to one.
        self.token = world.gather(secrets.token_hex(8))[0]
        if world.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{PARTIAL}*"):
                remove(leftover)
        self._check_shared()

    def _check_shared(self) -> None:
        """A part that another process cannot see would make a checkpoint that looks complete and is not."""
        mark = self.folder / f".shared-{self.token}"
        if self.world.rank == 0:
            mark.touch()
        self.world.barrier()
        answers = self.world.gather((socket.gethostname(), mark.is_file()))
        if self.world.rank == 0:
            mark.unlink()
        if blind := [f"{rank} on {host}" for rank, (host, exists) in enumerate(answers) if not exists]:
            raise ValueError(
                f"{self.folder.resolve()} is another folder for process {', '.join(blind)} than for process "
                f"0 on {answers[0][0]}; give an out_dir on storage that all nodes share"
            )

    @property
    def newest(self) -> SavedStep | None:
        """The last complete checkpoint."""
        checkpoints = complete(self.folder)
        return checkpoints[-1] if checkpoints else None

    def save(self, step: int, tensors: dict[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint; an earlier one that is still being written is waited for.

        Args:
            step: Steps that are done.
            tensors: Name -> tensor, sharded ones each process with its part.
            progress: Plain values, for a JSON file.
        """
        self.wait()
        folder = self.folder / f"{PARTIAL}{step:08d}-{self.token}"
        progress = {**progress, "step": step}
        if self.asynchronous:
            # Training may change the tensors at once. torch's own async_save copies none that are on the CPU
            # already before 2.7, such as offloaded ones.
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            files = self.writer.submit(write, folder, copies, self.world, self.group, self.files)
            self.pending = (files, folder, step, progress)
        else:
            with self._named(folder, step):
                files = write(folder, tensors, self.world, self.group, self.files)
                self._finish(folder, step, progress, files)

    def _named(self, folder: Path, step: int) -> AbstractContextManager[None]:
        return named(folder, step, lambda: self.newest.step if self.newest else 0)

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
        with self._named(partial, step):
            self._finish(partial, step, progress, future.result())

    def _finish(
        self, partial: Path, step: int, progress: Mapping[str, Any], files: Mapping[str, str]
    ) -> None:
        if self.world.rank != 0:
            return
        write_json({**progress, FILES: files}, partial / PROGRESS)
        final = self.folder / f"{PREFIX}{step:08d}"
        replaced = partial.with_name(f"{partial.name}-replaced")
        if os.path.lexists(final):
            os.replace(final, replaced)
        os.replace(partial, final)
        sync(self.folder)
        remove(replaced)
        logger.info("checkpoint %s", final)
        newest = complete(self.folder)[-self.keep :]
        for old in numbered(self.folder):
            if newest and old.step < newest[0].step:
                shutil.rmtree(old.path)

    def restore(
        self, tensors: dict[str, Tensor], check: Check = lambda checkpoint, progress: None
    ) -> tuple[SavedStep, dict[str, Any]] | None:
        """Read the newest checkpoint into tensors, in place; damaged ones are named and passed over.

        Args:
            tensors: As given to `save`; they may have been spread over other processes then.
            check: Called with a checkpoint and its progress before it is read; returns what is damaged in it,
                and raises ValueError where it does not fit the run.

        Returns:
            The checkpoint and its progress; None where there is none yet.

        Raises:
            ValueError: it does not fit the run, or all checkpoints are damaged.
        """
        candidates = self.world.gather(numbered(self.folder))[0]
        for checkpoint in reversed(candidates):
            reason = self.world.gather(damage(checkpoint.path) if self.world.rank == 0 else None)[0]
            if reason is None:
                progress = read_progress(checkpoint)
                reason = check(checkpoint, progress) or self._altered(checkpoint, progress)
            if reason is None:
                reason = self._load(checkpoint, tensors)
            if reason is None:
                return checkpoint, progress
            if self.world.rank == 0:
                logger.warning("%s is damaged: %s; trying the checkpoint before it", checkpoint.path, reason)
        if candidates:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged, as the log says above; remove that folder to "
                "start from step 0, or give another out_dir"
            )
        return None

    def _altered(self, checkpoint: SavedStep, progress: Mapping[str, Any]) -> str | None:
        """Compare the hashes of all files, each process those of its share."""
        if FILES not in progress and self.world.rank == 0:
            logger.info(
                "%s has no hashes of its files to compare, as an older version wrote it", checkpoint.path
            )
        reason = altered(checkpoint.path, progress.get(FILES, {}), self.world.rank, self.world.size)
        return next((one for one in self.world.gather(reason) if one), None)

    def _load(self, checkpoint: SavedStep, tensors: dict[str, Tensor]) -> str | None:
        """Read a checkpoint; returns what is damaged in it, None if all was read."""
        if difference := misfit(checkpoint.path, tensors):
            raise ValueError(
                f"{checkpoint.path} does not fit this run: {difference}; give the configuration it was made "
                "with, or another out_dir"
            )
        reason = None
        try:
            dcp.load(tensors, storage_reader=Reader(checkpoint.path), process_group=self.group)
        except (CheckpointException, Exception) as error:
            # Its names and shapes fit: what is wrong is in the bytes.
            reason = f"it cannot be read ({first_line(error)})"
        return next((one for one in self.world.gather(reason) if one), None)


def read_progress(checkpoint: SavedStep) -> dict[str, Any]:
    """The plain values of a checkpoint."""
    return read_progress_file(checkpoint.path)


def read_tensors(checkpoint: SavedStep, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Full tensors of a checkpoint with a name prefix, read by this process alone.

    Args:
        checkpoint: The checkpoint to read.
        prefix: Beginning of the names, cut off in what is yielded.

    Yields:
        (name, tensor on the CPU).

    Raises:
        ValueError: The checkpoint is damaged.
    """
    try:
        tensors = _read_tensors(checkpoint, prefix)
    except Exception as error:
        raise ValueError(
            f"{checkpoint.path} is damaged ({first_line(error)}); remove it to use the checkpoint before it"
        ) from error
    for name, tensor in tensors.items():
        yield name[len(prefix) :], tensor


def _read_tensors(checkpoint: SavedStep, prefix: str) -> dict[str, Tensor]:
    reader = Reader(checkpoint.path)
    metadata = reader.read_metadata()
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if name.startswith(prefix)
    }
    # dcp.load would wait for the other processes of a group; torch 2.6 knows no option against it.
    planner = dcp.DefaultLoadPlanner()
    planner.set_up_planner(tensors, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    plan = reader.prepare_local_plan(planner.create_local_plan())
    (plan,) = reader.prepare_global_plan(planner.create_global_plan([plan]))
    reader.read_data(planner.finish_plan(plan), planner).wait()
    return tensors
