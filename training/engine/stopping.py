"""Stops a run when the scheduler asks for it: SIGTERM, after which a checkpoint is written."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("vdot")
STATUS = 128 + signal.SIGTERM
"""Exit status of a run that was stopped, as of a process that the signal ended."""


@contextmanager
def before_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Do something before SIGTERM ends the process, or before what an outer block does at it.

    Args:
        action: Short, and waits for nothing: it interrupts the block anywhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def act(number: int, frame: object) -> None:
        action()
        signal.signal(number, before)
        os.kill(os.getpid(), number)

    # None: a handler that was not installed from Python, and that Python cannot install again.
    before = signal.signal(signal.SIGTERM, act) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """`made` is True once the process has been asked to stop."""

    made = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note SIGTERM in the main thread instead of ending; a second one ends the process at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: object) -> None:
        request.made = True
        signal.signal(signal.SIGTERM, before)
        logger.warning("SIGTERM: the step that is running is finished, then a checkpoint is written")

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
