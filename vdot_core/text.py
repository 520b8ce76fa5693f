"""Text from outside: names and values in a form that terminals can show, and JSON, read with care."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable
from functools import partial
from pathlib import PurePath
from typing import Any

MAX_JSON_BYTES = 8_000_000  # Python's objects take up to 20 times as much
MAX_DIGITS = 20  # of 2**64, the largest seed
_WIDE = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0x3001: ",", 0x3000: " "}
_REPR = reprlib.Repr()
_REPR.maxlevel = 2


def shown(value: object, limit: int = 160) -> str:
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


def described(value: object, limit: int = 60) -> str:
    """A value of the wrong type or out of range, in a message: as `shown`, with text in quotes.

    So "24" and 24, "true" and True, or "" and nothing at all can be told apart.
    """
    if value is None:
        return "missing"
    return f"'{shown(value, limit - 2)}'" if isinstance(value, (str, PurePath)) else shown(value, limit)


def typed(text: str) -> str:
    """A typed text, with the signs of a Chinese or Japanese keyboard as those of a Latin one."""
    return text.translate(_WIDE)


def _short_repr(value: object) -> str:
    try:
        return _REPR.repr(value)
    except Exception:  # such as an integer of more digits than Python prints
        return f"{'an' if isinstance(value, int) else 'a'} {type(value).__name__}"


def listed(values: Iterable[object], limit: int = 10, width: int = 160) -> str:
    """The first values of many, shown, such as "a, b and 3 more".

    Args:
        values: any values.
        limit: how many are shown at most.
        width: characters of all that are shown; the first one always is, shortened where it must.
    """
    values = list(values)
    texts: list[str] = []
    for value in values[:limit]:
        text = shown(value, min(width, 80))
        if texts and sum(map(len, texts)) + 2 * len(texts) + len(text) > width:
            break
        texts.append(text)
    rest = len(values) - len(texts)
    return ", ".join(texts) + (f" and {rest} more" if rest else "")


def parse_json(
    text: str | bytes, *, allow_nan: bool = False, unique_keys: bool = False, max_digits: int = MAX_DIGITS
) -> Any:
    """Parse JSON that comes from outside.

    Args:
        text: at most `MAX_JSON_BYTES`; bytes are UTF-8.
        allow_nan: read NaN and Infinity, which some tables have in empty cells.
        unique_keys: refuse a key that stands twice in an object; otherwise the last one counts.
        max_digits: of an integer.
    Returns:
        The value; its numbers are finite.
    Raises:
        ValueError: anything else, in one short line that says why.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"{len(text)} characters, expected at most {MAX_JSON_BYTES}")
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        constants = float if allow_nan else _real
        return json.loads(
            text,
            parse_int=partial(_integer, max_digits),
            parse_float=_real,
            parse_constant=constants,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None
    except ValueError as error:
        raise ValueError(shown(error, 120)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key '{shown(key, 40)}' stands twice")
        values[key] = value
    return values


def _integer(max_digits: int, digits: str) -> int:
    if len(digits) > max_digits:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(digits, 20)}, expected a finite one")
    return value


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as "1 frame", "2 frames" and "3 boxes"."""
    plural = f"{noun}es" if noun.endswith("x") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
