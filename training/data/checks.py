"""Checks that settings classes make of their values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vdot_core.text import described


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_range(settings: object, group: str, least: float, most: float, *names: str) -> None:
    """Raise a ValueError where one of these settings is out of [least, most].

    Args:
        settings: Dataclass that has them.
        group: Dotted name of the group that they are in, with its last dot; empty: none.
        least, most: Range of each.
        names: Their names; None, of a setting that may be null, is in range.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise ValueError(
                f"{group}{name} is {described(value)}; expected {_number(least)} to {_number(most)}"
            )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def is_plain(name: str) -> bool:
    """True if a name can be that of a file or folder, in the folder where it is made."""
    return 0 < len(name) <= 100 and name.isprintable() and name == Path(name).name and name[0] not in ".-"


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
