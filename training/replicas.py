"""Pretraining in several processes under torchrun: each holds the whole model and a part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's other processes for the length of a run; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, from 0; 0 when it runs alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def own_part(count: int) -> slice:
    """Which of `count` samples of a batch are this process's; the parts together are all of them."""
    if count % world_size():
        raise ValueError(
            f"a batch of {count} does not divide among {world_size()} processes; change teacher.batch"
        )
    size = count // world_size()
    return slice(rank() * size, (rank() + 1) * size)
