"""Checks that settings classes make of their values."""

from __future__ import annotations

from collections.abc import Iterable

from vdot_core.text import described


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_tasks(names: Iterable[str], key: str) -> None:
    """Raise a ValueError where a configuration's key names a task that no row can have.

    Args:
        names: Tasks; rows have them in the form of docs/TASKS.md.
        key: The configuration key, for the message.
    """
    from .conditioning import canonical, task_parts

    for name in names:
        own = canonical(name)
        try:
            task_parts(own)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        require(
            own == name, f"{key} has {described(name)}, a task that rows call {described(own)}; write {own}"
        )
