"""Text from outside (file names, keys, metadata) in a form that messages, logs and terminals can show."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from pathlib import PurePath

_REPR = reprlib.Repr()
_REPR.maxlevel = 2


def shown(value: object, limit: int = 300) -> str:
    """Escape and shorten a value that comes from outside.

    Args:
        value: a name, a path, a metadata value, an error of another library, or any plain value.
        limit: characters that are kept; of a longer text the middle is replaced by "...".
    Returns:
        One line without control characters, terminal sequences, marks of writing direction or undecodable
        bytes; these appear as escapes, such as \\x1b, \\u202e and \\udce8.
    """
    text = str(value) if isinstance(value, (str, PurePath, BaseException)) else _short_repr(value)
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _short_repr(value: object) -> str:
    try:
        return _REPR.repr(value)
    except Exception:  # such as an integer of more digits than Python prints
        return f"{'an' if isinstance(value, int) else 'a'} {type(value).__name__}"


def listed(values: Iterable[object], limit: int = 10) -> str:
    """The first values of many, shown, such as "a, b and 3 more"."""
    values = list(values)
    first = ", ".join(shown(value, 160) for value in values[:limit])
    return first + (f" and {len(values) - limit} more" if len(values) > limit else "")
