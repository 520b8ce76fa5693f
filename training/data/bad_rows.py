"""Rows that are not trained on: the one exception for them, and their entry in logs and in the cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from vdot_core.foreign import UnusableModelError
from vdot_core.out_of_memory import OutOfMemoryError, is_out_of_memory
from vdot_core.text import shown

logger = logging.getLogger("vdot")
NUM_LOGGED = 100
KINDS = ("missing", "unreadable", "misshapen", "wrong", "failed")
# Other rows may still be encoded after these; `training/cache.py --retry_skipped` tries them again.
RETRIED = ("missing", "unreadable", "failed")


class BadRowError(ValueError):
    """A row cannot be used; the message says why, without naming the row."""

    def __init__(self, kind: str, reason: str) -> None:
        assert kind in KINDS
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Skipped:
    """A row that is not trained on.

    Attributes:
        id: The row's name.
        place: Its location, such as "clips.csv line 7".
        kind: missing (a field or file), unreadable, misshapen, wrong (a task or value), or failed (an error
            that encoding it raised).
        reason: One sentence.
    """

    id: str
    place: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.place)} ({shown(self.id, 80)}): {shown(self.reason, 400)}"

    @classmethod
    def is_entry(cls, values: Any) -> bool:
        """True if a value of a file is what `asdict` gives of an entry."""
        names = [field.name for field in fields(cls)]
        return (
            isinstance(values, dict)
            and sorted(values) == sorted(names)
            and all(isinstance(values[name], str) for name in names)
        )

    @classmethod
    def from_error(cls, row_id: str, place: str, error: Exception) -> Skipped:
        """The entry of a row for an error of its reading, tokenizing or encoding.

        Args:
            row_id, place: The row.
            error: Any exception that it raised.

        Raises:
            RuntimeError: The memory is exhausted: the row is named, and what to change.
            ValueError: A package is not installed, or a model cannot be read; every row would be left out.
            Exception: `error` itself where the GPU failed.
        """
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"out of memory at {shown(place)} ({shown(row_id, 80)}): {shown(error)}. "
                "Lower data.max_pixels or data.num_frames, or use a machine with more memory; "
                "finished shards are kept"
            ) from error
        if isinstance(error, UnusableModelError):
            raise ValueError(str(error)) from error
        if isinstance(error, ImportError):
            raise needs_package(f"{place} ({shown(row_id, 80)})", error) from error
        if isinstance(error, getattr(torch, "AcceleratorError", ())):
            raise error
        if isinstance(error, BadRowError):
            return cls(row_id, place, error.kind, str(error))
        if isinstance(error, UnicodeError) or not isinstance(error, ValueError):
            return cls(row_id, place, "failed", f"{type(error).__name__}: {error}")
        # A builder's refusal: sizes, lengths or pictures that do not fit each other.
        return cls(row_id, place, "misshapen", str(error))


def needs_package(place: object, error: ImportError) -> ValueError:
    """The error for a place, such as s3://a.csv, whose reading needs a package that is not installed."""
    return ValueError(
        f"{shown(place)} needs a package that is not installed ({shown(error, 120)}); install it and give "
        "the same command again: finished shards are kept"
    )


def log_skipped(rows: Sequence[Skipped], level: int, place: object, already: int = 0) -> None:
    """Log rows that were left out, `NUM_LOGGED` in all by their names.

    Args:
        rows: The rows.
        level: Of logging.
        place: File or folder that names every row.
        already: Rows that were logged before them.
    """
    for row in rows[: max(NUM_LOGGED - already, 0)]:
        logger.log(level, "skipped %s", row)
    rest = already + len(rows) - NUM_LOGGED
    if rows and 0 < rest:
        logger.log(level, "skipped %d more rows, named in %s", min(rest, len(rows)), shown(place))
