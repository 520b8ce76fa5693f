"""Stops a run at SIGTERM, Ctrl-C or the end of its terminal, after which a checkpoint is written."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger("vdot")
STATUS = 128 + signal.SIGTERM
"""Exit status of a run that was stopped, as of a process that the signal ended."""
# torchrun passes a terminal's signal on to its workers, which may have it from the terminal too.
ONE_REQUEST_S = 2.0


def _handlers(*names: str) -> dict[int, Any]:
    """Signals that end this process, with their handlers: nohup ignores SIGHUP, Windows has none."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # None: a handler that was not installed from Python, and that Python cannot install again.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    return {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}


def _install(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def before_end(action: Callable[[], None]) -> Iterator[None]:
    """Do something before SIGTERM or SIGHUP ends the process, or before what an outer block does at them.

    Args:
        action: Short, and waits for nothing: it interrupts the block anywhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def act(number: int, frame: FrameType | None) -> None:
        action()
        signal.signal(number, before[number])
        os.kill(os.getpid(), number)

    before = _handlers("SIGTERM", "SIGHUP")
    try:
        _install(dict.fromkeys(before, act))
        yield
    finally:
        _install(before)


class StopRequest:
    """`made` is True once the process has been asked to stop, by the signal `number`."""

    made = False
    number = signal.SIGTERM  # also where only another process of the run was asked

    @property
    def name(self) -> str:
        """The signal's name as a user knows it."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGHUP in the main thread instead of ending; a second one ends at once.

    The same request may arrive several times: those within ONE_REQUEST_S seconds of the first are one.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    begin = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal begin
        if not request.made:
            request.made, request.number, begin = True, number, time.monotonic()
            logger.warning(
                "%s: the step that is running is finished, then a checkpoint is written", request.name
            )
        elif time.monotonic() - begin > ONE_REQUEST_S:
            # Whatever the signal, as SIGTERM: that releases locks and shows no traceback.
            signal.signal(signal.SIGTERM, before.get(signal.SIGTERM, signal.SIG_DFL))
            os.kill(os.getpid(), signal.SIGTERM)

    before = _handlers("SIGTERM", "SIGINT", "SIGHUP")
    try:
        _install(dict.fromkeys(before, note))
        yield request
    finally:
        _install(before)


def interrupt_in_words(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a program's `main(argv)`: at Ctrl-C it logs a sentence and returns 130."""

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one ends without a traceback
            logger.error("ended by Ctrl-C; the same command resumes")
            return 128 + signal.SIGINT

    return ending
