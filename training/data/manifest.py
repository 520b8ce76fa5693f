"""Manifests: a table of clips in CSV, JSON Lines or Parquet -> rows.

    task_name          a name of docs/TASKS.md, such as depth or reference_pose
    prompt             the caption, or a list of them (internvl_short is read as prompt)
    src_video_path     the control, drawn already; or the clip of which something is kept
    mask_video_path    1 (white) = generate; a video or a picture
    ref_image_path     one or several: a list, or in CSV a JSON list or "a.png; b.png"
    target_video_path  the real clip
    id                 optional name of the row

Paths are local or whatever fsspec opens; relative ones start at the manifest's folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from .clips import Media
from .samples import BadRowError, Skipped
from .tables import BadLine, Record, read_table

logger = logging.getLogger("vdot")
RENAMED = {"internvl_short": "prompt"}
PATHS = ("src_video_path", "mask_video_path", "target_video_path")
REQUIRED = ("task_name", "prompt")
EXPECTED = {
    "task_name": "text",
    "prompt": "text, or a list of texts",
    **dict.fromkeys(PATHS, "a path"),
    "ref_image_path": "a path, or a list of paths",
    "id": "text or a number",
}
COLUMNS = (*REQUIRED, *PATHS, "ref_image_path", "id")


@dataclass(frozen=True)
class Row:
    """One row: a task, captions and its files.

    Attributes:
        id: Its name. place: Where it stands, for messages.
        task: Task name. prompts: Captions, any of which may be used.
        source, mask, target: Videos or pictures. references: Pictures.
    """

    id: str
    place: str = field(compare=False)
    task: str
    prompts: tuple[str, ...]
    source: Media | None = None
    mask: Media | None = None
    references: tuple[Media, ...] = ()
    target: Media | None = None


class ManifestRows:
    """The rows of a manifest, in shards of a fixed number.

    Args:
        path: .csv, .jsonl (or .json with one object a line) or .parquet, local or remote.
        rows_per_shard: Rows in a shard.

    Raises:
        ValueError: The file is missing or is no such table, a column that every row needs is missing, or no
            row says enough to be used.
    """

    def __init__(self, path: str, rows_per_shard: int) -> None:
        self.path, self.rows_per_shard = str(path), rows_per_shard
        self._records = [r if isinstance(r, BadLine) else _renamed(r) for r in read_table(self.path)]
        if not self._records:
            raise ValueError(f"{path} has no rows; give a manifest with at least one")
        good = [record for record in self._records if not isinstance(record, BadLine)]
        if good:
            _check_columns(self.path, good)
        self._names = Counter(_name(record) for record in good)
        self.num_shards = -(-len(self._records) // rows_per_shard)
        self._check_any()

    def _check_any(self) -> None:
        """Refuse a table of another layout, of which every row would be left out."""
        first = None
        for row in (self._row(number, record) for number, record in enumerate(self._records)):
            if isinstance(row, Row):
                return
            first = first or row
        raise ValueError(
            f"{self.path}: none of its {len(self._records)} rows can be used; the first: {first}"
        )

    def identity(self) -> str:
        """A hash of what the rows say, in whichever format; the files behind the paths are not read."""
        known = [
            None if isinstance(record, BadLine) else {n: _plain(n, record.get(n)) for n in COLUMNS}
            for record in self._records
        ]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of one shard, in order; rows that say too little come as what is wrong with them."""
        first = shard * self.rows_per_shard
        for number, record in enumerate(self._records[first : first + self.rows_per_shard], first):
            yield self._row(number, record)

    def _row(self, number: int, record: Record | BadLine) -> Row | Skipped:
        file, own_id = self.path.rsplit("/", 1)[-1], f"{number:08d}"
        if isinstance(record, BadLine):
            return Skipped(own_id, f"{file} line {record.line}", "misshapen", record.reason)
        name, place = _name(record), f"{file} row {number + 1}"
        own_id = own_id if name is None else name
        if name is not None and self._names[name] > 1:
            return Skipped(own_id, place, "wrong", f"the id {own_id} stands in {self._names[name]} rows")
        try:
            for column in (*PATHS, "id"):
                _check_type(column, record.get(column))
            references = _list(record.get("ref_image_path"))
        except BadRowError as error:
            return Skipped(own_id, place, error.kind, str(error))
        files = {column: self._media(_cell(record.get(column))) for column in PATHS}
        return make_row(
            own_id,
            place,
            record,
            source=files["src_video_path"],
            mask=files["mask_video_path"],
            target=files["target_video_path"],
            references=tuple(self._media(value) for value in references),
        )

    def _media(self, value: str | None) -> Media | None:
        return None if value is None else Media(_resolved(value, self.path))


def make_row(row_id: str, place: str, record: Record, **files: Any) -> Row | Skipped:
    """A row of a record's task and prompt, or what is wrong with them."""
    try:
        for name in REQUIRED:
            _check_type(name, record.get(name))
    except BadRowError as error:
        return Skipped(row_id, place, error.kind, str(error))
    task, prompts = _cell(record.get("task_name")), record.get("prompt")
    prompts = prompts if isinstance(prompts, (list, tuple)) else [prompts]
    prompts = [prompt.strip() for prompt in prompts if _cell(prompt) is not None]
    for name, value in (("task_name", task), ("prompt", prompts)):
        if not value:
            return Skipped(row_id, place, "missing", f"{name} is empty")
    return Row(row_id, place, task, tuple(prompts), **files)


def _check_type(name: str, value: Any) -> None:
    """BadRowError where a cell is not of its column's type; an empty one is of any."""
    listed = isinstance(value, (list, tuple)) and name in ("prompt", "ref_image_path")
    for part in value if listed else [value]:
        number = name == "id" and isinstance(part, (int, float)) and not isinstance(part, bool)
        if not (number or isinstance(part, str) or _cell(part) is None):
            raise BadRowError(
                "misshapen",
                f"{name} {'holds' if listed else 'is'} {reprlib.repr(part)}, of type {type(part).__name__}; "
                f"expected {EXPECTED[name]}",
            )


def _name(record: Record) -> str | None:
    """The row's own id; None where it has none that can be one."""
    try:
        _check_type("id", record.get("id"))
    except BadRowError:
        return None
    value = _cell(record.get("id"))
    return None if value is None else str(value)


def _renamed(record: Record) -> Record:
    return {RENAMED.get(name, name): value for name, value in record.items()}


def _check_columns(path: str, records: Sequence[Record]) -> None:
    """Refuse a table without the columns that every row needs, and misspelt ones; say which are not read."""
    columns = {name for record in records for name in record}
    absent = [name for name in COLUMNS if name not in columns]
    for name in sorted(columns - set(COLUMNS)):
        near = get_close_matches(name, absent, 1, cutoff=0.8)
        if near:
            raise ValueError(f"{path} has a column {name!r}; did you mean {near[0]!r}?")
        logger.info("%s: the column %s is not read", path, name)
    for name in REQUIRED:
        if name in absent:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(sorted(columns))}")


def _cell(value: Any) -> Any:
    """None for what tables use for nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str) and not value.strip():
        return None
    return value.strip() if isinstance(value, str) else value


def _list(value: Any) -> list[str]:
    """One path, a list of them, or a CSV cell with several; BadRowError where it is neither."""
    value = _cell(value)
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError("wrong", f"ref_image_path is {value!r}, no JSON list ({error})") from error
    _check_type("ref_image_path", value)
    parts = value.split(";") if isinstance(value, str) else value
    return [part.strip() for part in parts if _cell(part) is not None]


def _plain(name: str, value: Any) -> list[str]:
    """The same value for all three formats."""
    if name == "ref_image_path":
        try:
            return _list(value)
        except BadRowError:
            return [str(value)]
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [str(_cell(part)) for part in parts if _cell(part) is not None]


def _resolved(path: str, manifest: str) -> str:
    """A relative path starts at the manifest's folder."""
    if "://" in path or path.startswith("/") or path[1:3] in (":\\", ":/"):
        return path
    folder, slash, _ = manifest.replace("\\", "/").rpartition("/")
    return f"{folder}/{path}" if slash else path
