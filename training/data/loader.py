"""Reads the batches of coming steps in background processes, with torch's DataLoader."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from .batch import Batch
from .source import Source


class _Steps(Dataset):
    """Map-style: step number -> this process's micro-batches of that step."""

    def __init__(self, source: Source, rank: int, world_size: int) -> None:
        self.source, self.rank, self.world_size = source, rank, world_size

    def __getitem__(self, step: int) -> list[Batch]:
        return self.source.batches(step, self.rank, self.world_size)


def _end_by_parent_alone(_worker: int) -> None:
    """Ignore a scheduler's and a terminal's signals, which all processes of a run get.

    Its last step needs batches.
    """
    for name in ("SIGINT", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def step_batches(
    source: Source,
    first_step: int,
    last_step: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> Iterator[list[Batch]]:
    """Iterate over this process's micro-batches, step by step.

    Args:
        source: The source of batches. Started by spawn (macOS, Windows), workers get a pickled copy.
        first_step, last_step: Steps first_step .. last_step - 1, in order.
        rank, world_size: This process's part of each global batch.
        workers: Background processes; 0 reads in this one. Order and content do not depend on it.
        prefetch: Steps that each worker reads ahead.
        pin_memory: Put the tensors in page-locked memory, for copies to a GPU.

    Returns:
        An iterator with one list of micro-batches for each step. Its workers start now, and end when it is
        exhausted or deleted.

    Raises:
        ValueError: `workers` or `prefetch` is out of range. An exception in a worker is raised again by the
            iterator, with its type, message and traceback.
    """
    if workers < 0 or prefetch < 1:
        raise ValueError(f"workers is {workers} and prefetch {prefetch}; expected at least 0 and 1")
    loader = DataLoader(
        _Steps(source, rank, world_size),
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_end_by_parent_alone,
        # By default the loader would draw its seed from the global generator.
        generator=torch.Generator(),
    )
    return iter(loader)
