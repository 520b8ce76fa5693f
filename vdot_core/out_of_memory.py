"""Running out of memory: how it is told from other errors, and how a program ends then."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Sequence

from .text import shown

logger = logging.getLogger("vdot")
# torch's CPU allocator, cuBLAS and cuDNN raise a plain RuntimeError, the system an OSError; the last two are
# of torch's loader: a worker process that the system ended, and its shared memory.
PHRASES = (
    "DefaultCPUAllocator", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED",
    "killed by signal: Killed", "out of shared memory",
)  # fmt: skip
WORKERS = PHRASES[-2:]


class OutOfMemoryError(RuntimeError):
    """The memory is exhausted; the message says where, and what to change."""


def is_out_of_memory(error: BaseException) -> bool:
    """True for each of the errors that the computer's or a GPU's memory is exhausted."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError, OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)


def memory_in_words(cure: str) -> Callable:
    """Decorate a program's `main(argv)`: out of memory, it logs a sentence and returns 1.

    Args:
        cure: What to do, such as "lower data.batch_size".
    """

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def ending(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
                logger.error("%s", sentence(error, cure))
                logger.debug("out of memory", exc_info=error)
                return 1

        return ending

    return decorate


def sentence(error: BaseException, cure: str) -> str:
    """An error of `is_out_of_memory` in words."""
    if isinstance(error, OutOfMemoryError):
        return str(error)
    text = str(error).strip()
    if line := next((line for line in text.splitlines() if any(phrase in line for phrase in WORKERS)), None):
        return f"out of memory in a data worker ({shown(line, 120)}); give --data.workers 0"
    # A worker's error has its traceback in front of its message, a GPU's explains its allocator after it.
    lines = text.splitlines() or ["MemoryError"]
    reason = lines[-1] if lines[0].startswith("Caught ") else lines[0]
    return f"out of memory ({shown(reason, 120)}); {cure}"
