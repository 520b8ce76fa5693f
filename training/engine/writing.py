"""Writes a checkpoint's tensors to an unfinished folder, and names what a disk refuses."""

from __future__ import annotations

import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _write_files_from_queue

from vdot_core.memory import GIB
from vdot_core.text import shown

from ..distributed.world import World
from .hashes import hashes
from .metadata import METADATA


class NotSavedError(RuntimeError):
    """A checkpoint or an export could not be written; the message says where, why, and what remains."""


class Writer(dcp.FileSystemWriter):
    """`dcp.FileSystemWriter`, which alone loses the errors of its threads, and with them tensors."""

    def write_data(self, plan: dcp.SavePlan, planner: dcp.SavePlanner) -> Any:
        """As torch's; raises OSError where a thread could not write its file."""
        with _errors_of_threads() as errors:
            try:
                results = super().write_data(plan, planner)
            except RuntimeError as error:
                raise _of_system(error) from error
        if errors:
            raise _of_system(errors[0]) from errors[0]
        if len(results.value()) < len(plan.items):
            raise OSError("not all files could be written")
        return results


@contextmanager
def _errors_of_threads() -> Iterator[list[BaseException]]:
    """Collect what ends the threads that torch starts to write files, instead of printing it."""
    errors: list[BaseException] = []
    before = threading.excepthook

    def collect(args: threading.ExceptHookArgs) -> None:
        frames = traceback.walk_tb(args.exc_traceback)
        if any(frame.f_code is _write_files_from_queue.__code__ for frame, _ in frames):
            errors.append(args.exc_value)
        else:
            before(args)

    threading.excepthook = collect
    try:
        yield errors
    finally:
        # Where this thread's own file failed, torch does not wait for the others.
        for thread in threading.enumerate():
            if thread.name.endswith(f"({_write_files_from_queue.__name__})"):
                thread.join()
        threading.excepthook = before


def _of_system(error: BaseException) -> BaseException:
    """The system's error, which torch.save replaces by its own while it handles it."""
    return error.__context__ if isinstance(error.__context__, OSError) else error


def write(
    folder: Path, tensors: dict[str, Tensor], world: World, group: Any, num_files: int
) -> dict[str, str]:
    """Write all tensors, each process its part.

    Args:
        folder: Of the unfinished checkpoint.
        tensors: Name -> tensor, sharded ones each process with its part.
        world: The processes.
        group: Their group for checkpoints.
        num_files: Files of each process.

    Returns:
        Name -> hash of every file, of which each process reads its part.
    """
    # The coordinator writes the metadata last, when all have written.
    dcp.save(tensors, storage_writer=Writer(folder, thread_count=num_files), process_group=group)
    paths = [*folder.glob(f"__{world.rank}_*"), *([folder / METADATA] if world.rank == 0 else ())]
    parts = [hashes(paths)]
    if world.size > 1:
        part, parts = parts[0], [{}] * world.size
        dist.all_gather_object(parts, part, group=group)
    return {name: digest for part in parts for name, digest in part.items()}


@contextmanager
def named(folder: Path, step: int, newest: Callable[[], int]) -> Iterator[None]:
    """Remove an unfinished checkpoint that the disk did not take, and say what to do.

    Args:
        folder: Of the unfinished checkpoint.
        step: Steps done.
        newest: Those of the newest complete checkpoint, or 0.

    Raises:
        NotSavedError: The disk refused.
    """
    try:
        yield
    except (CheckpointException, Exception) as error:
        if not isinstance(_single(error), OSError):
            raise
        # Counted before the unfinished files are removed, as the disk was at the refusal.
        free = shutil.disk_usage(folder.parent).free / GIB
        shutil.rmtree(folder, ignore_errors=True)
        raise NotSavedError(
            f"the checkpoint of step {step} could not be written to {shown(folder.parent)} "
            f"({shown(first_line(error), 80)}; {free:.1f} GiB are free there); make space and give the "
            f"same command again: it {f'resumes from step {step}' if (step := newest()) else 'starts over'}"
        ) from error


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def first_line(error: BaseException) -> str:
    """An error of one process, also where torch lists those of all."""
    error = _single(error)
    if "weights_only" in str(error):
        return "it holds more than tensors"
    return shown(f"{type(error).__name__}: {error}".partition("\n")[0])


def _single(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException) and error.failures:
        return next(iter(error.failures.values()))[0]
    return error
