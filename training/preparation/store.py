"""Results of stages by row, in one SQLite file: complete after a kill at any moment, read row by row."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vdot_core.text import shown

COMMIT_S = 1.0
SCHEMA = """
create table if not exists results (
    stage text not null, id text not null, key text not null, value text not null, seconds real not null,
    primary key (stage, id)
) without rowid
"""
Value = dict[str, Any]


class Store:
    """The results of a preparation; one process writes it.

    Args:
        path: The file; created if need be.

    Raises:
        ValueError: It is no such file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._committed = time.monotonic()
        try:
            # Workers return results; this process alone writes. Every commit is on the disk.
            self._database = sqlite3.connect(str(path), isolation_level=None)
            self._database.execute("pragma synchronous = full")
            self._database.execute(SCHEMA)
            self._database.execute("begin")
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{shown(path)} cannot be used ({shown(error, 120)}); remove it to prepare everything again, "
                "or give another out_dir"
            ) from error

    def key(self, stage: str, row_id: str) -> str | None:
        """The key of a row's result; None where there is none."""
        row = self._database.execute(
            "select key from results where stage = ? and id = ?", (stage, row_id)
        ).fetchone()
        return row and row[0]

    def get(self, stage: str, row_id: str) -> Value | None:
        """A row's result."""
        row = self._database.execute(
            "select value from results where stage = ? and id = ?", (stage, row_id)
        ).fetchone()
        return row and json.loads(row[0])

    def put(self, stage: str, row_id: str, key: str, value: Value, seconds: float) -> None:
        """Save a result; it is on the disk within `COMMIT_S` of the next one, or after `commit`."""
        text = json.dumps(value, sort_keys=True)
        self._database.execute(
            "insert or replace into results values (?, ?, ?, ?, ?)", (stage, row_id, key, text, seconds)
        )
        if time.monotonic() - self._committed > COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Bring all results to the disk."""
        self._database.execute("commit")
        self._database.execute("begin")
        self._committed = time.monotonic()

    def times(self) -> dict[str, tuple[int, float]]:
        """Stage -> (rows, seconds of work) of all results."""
        rows = self._database.execute("select stage, count(*), sum(seconds) from results group by stage")
        return {stage: (count, seconds) for stage, count, seconds in rows}

    def ids(self, stage: str) -> Iterator[str]:
        """Rows of a stage, sorted."""
        last = ""
        while True:
            # In blocks: a cursor that is open while others write would see some rows twice.
            block = self._database.execute(
                "select id from results where stage = ? and id > ? order by id limit 1000", (stage, last)
            ).fetchall()
            if not block:
                return
            for (row_id,) in block:
                yield row_id
            last = block[-1][0]

    def close(self) -> None:
        """Commit and close."""
        self._database.execute("commit")
        self._database.close()
