"""Progress of long loops, for whoever shows it or wants to stop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Progress = Callable[[int, int], None]

_listener: ContextVar[Progress | None] = ContextVar("vdot_progress", default=None)
_loop: ContextVar[tuple[int, int]] = ContextVar("vdot_progress_loop", default=(0, 1))


@contextmanager
def reporting(listener: Progress) -> Iterator[None]:
    """Call a function with (steps done, steps in all) after every step of a loop over `steps`.

    What it raises ends the loop: so work is canceled.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def steps(items: Sequence[Item]) -> Iterator[Item]:
    """The items in order, each of them reported when it is done."""
    listener = _listener.get()
    for number, item in enumerate(items, 1):
        _loop.set((number - 1, len(items)))
        yield item
        if listener is not None:
            listener(number, len(items))
    _loop.set((0, 1))


def part(count: int, total: int) -> None:
    """Report that `count` of `total` parts of the present item of `steps` are done."""
    listener, (finished, num_items) = _listener.get(), _loop.get()
    if listener is not None:
        listener(finished * total + min(count, total), num_items * total)
