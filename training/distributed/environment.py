"""Rank and number of processes, from the environment variables of torchrun or SLURM."""

from __future__ import annotations

import os

from vdot_core.text import described

MAX_PROCESSES = 1_000_000


def whole_number(*names: str) -> int | None:
    """The first of these variables that has a value; None where none has.

    Raises:
        ValueError: It is no whole number, or of more than `MAX_PROCESSES` processes.
    """
    for name in names:
        text = os.environ.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit() and int(text[:20]) <= MAX_PROCESSES):
            raise ValueError(
                f"the environment variable {name} is {described(text)}, expected a whole number from 0; "
                f"start with torchrun or srun, which set it, or unset {name}"
            )
        if text:
            return int(text)
    return None


def place() -> tuple[int, int]:
    """This process's rank, and the number of processes, of torchrun; 0 and 1 without.

    Raises:
        ValueError: They are no such numbers.
    """
    rank, size = whole_number("RANK") or 0, whole_number("WORLD_SIZE")
    size = 1 if size is None else size
    if rank >= size:
        raise ValueError(
            f"the environment variables say RANK {rank} of WORLD_SIZE {size}, expected a smaller rank; start "
            "with torchrun, which sets both, or unset them"
        )
    return rank, size
