"""Results of stages by row, in one SQLite file: complete after a kill at any moment, read row by row."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdot_core.text import shown

STORE = "state.sqlite"
"""Name of the file in the output folder."""
COMMIT_S = 1.0
SCHEMA = """
create table if not exists results (
    stage text not null, id text not null, key text not null, value text not null, seconds real not null,
    primary key (stage, id)
) without rowid
"""
Value = dict[str, Any]


def _digest(text: str) -> str:
    """Stands in front of a result's text: a damaged one may still be JSON."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Store:
    """The results of a preparation; one process writes it.

    Args:
        path: The file; created if need be.

    Raises:
        ValueError: It is no such file, or damaged, or its disk is full; so do all calls.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._committed = time.monotonic()
        with self._in_words():
            # Workers return results; this process alone writes. Every commit is on the disk.
            self._database = sqlite3.connect(str(path), isolation_level=None)
        for statement in ("pragma synchronous = full", SCHEMA, "begin"):
            self._rows(statement)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Errors of the file as a sentence: what is in its way is not what is wrong with its content."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ValueError(
                f"{shown(self.path)} cannot be used ({shown(error, 120)}); make room on its disk, or make it "
                "writable, and give the same command again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(self._damage(shown(error, 120))) from error

    def _damage(self, what: str) -> str:
        return (
            f"{shown(self.path)} is damaged ({what}); remove it to prepare everything again, or give another "
            "out_dir"
        )

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._in_words():
            return self._database.execute(statement, values).fetchall()

    def key(self, stage: str, row_id: str) -> str | None:
        """The key of a row's result; None where there is none."""
        rows = self._rows("select key from results where stage = ? and id = ?", (stage, row_id))
        return rows[0][0] if rows else None

    def get(self, stage: str, row_id: str) -> Value | None:
        """A row's result."""
        rows = self._rows("select value from results where stage = ? and id = ?", (stage, row_id))
        if not rows:
            return None
        digest, _, text = str(rows[0][0]).partition(" ")
        if digest != _digest(text):
            raise ValueError(
                self._damage(f"{shown(stage, 20)} of {shown(row_id, 60)}, or by an earlier version")
            )
        return json.loads(text)

    def put(self, stage: str, row_id: str, key: str, value: Value, seconds: float) -> None:
        """Save a result; it is on the disk within `COMMIT_S` of the next one, or after `commit`."""
        text = json.dumps(value, sort_keys=True)
        values = (stage, row_id, key, f"{_digest(text)} {text}", seconds)
        self._rows("insert or replace into results values (?, ?, ?, ?, ?)", values)
        if time.monotonic() - self._committed > COMMIT_S:
            self.commit()

    def drop(self, stage: str, row_id: str) -> None:
        """Remove a row's result, from the disk too; nothing where there is none."""
        if self.key(stage, row_id) is not None:
            self._rows("delete from results where stage = ? and id = ?", (stage, row_id))
            self.commit()

    def commit(self) -> None:
        """Bring all results to the disk."""
        self._rows("commit")
        self._rows("begin")
        self._committed = time.monotonic()

    def times(self) -> dict[str, tuple[int, float]]:
        """Stage -> (rows, seconds of work) of all results."""
        rows = self._rows("select stage, count(*), sum(seconds) from results group by stage")
        return {stage: (count, seconds) for stage, count, seconds in rows}

    def ids(self, stage: str) -> Iterator[str]:
        """Rows of a stage, sorted."""
        last = ""
        while True:
            # In blocks: a cursor that is open while others write would see some rows twice.
            block = self._rows(
                "select id from results where stage = ? and id > ? order by id limit 1000", (stage, last)
            )
            if not block:
                return
            for (row_id,) in block:
                yield row_id
            last = block[-1][0]

    def close(self) -> None:
        """Commit and close."""
        try:
            if self._database.in_transaction:  # a full disk ends it
                self._rows("commit")
        finally:
            self._database.close()
