"""Manifests: a table of clips in CSV, JSON Lines or Parquet -> rows.

    task_name          a name of docs/TASKS.md, such as depth or reference_pose
    prompt             the caption, or a list of them, in CSV a JSON list (internvl_short is read as prompt)
    src_video_path     the control, drawn already; or the clip of which something is kept
    mask_video_path    1 (white) = generate; a video or a picture
    ref_image_path     one or several: a list, or in CSV a JSON list or "a.png; b.png"
    target_video_path  the real clip
    id                 optional name of the row

Paths are local or any address that fsspec opens; relative ones start at the manifest's folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise

from vdot_core.text import counted, listed, shown

from .bad_rows import BadRowError, Skipped
from .cells import (
    COLUMNS,
    PATHS,
    RENAMED,
    REQUIRED,
    cell,
    cell_texts,
    check_type,
    read_list,
    read_texts,
    renamed,
)
from .file_names import clip_file, relative_name
from .records import Record, read_table
from .video_files import Media

logger = logging.getLogger("vdot")


@dataclass(frozen=True)
class Row:
    """One row: a task, captions and its files.

    Attributes:
        id: Its name.
        place: Its location, for messages.
        task: Task name.
        prompts: Captions, any of which may be used.
        source, mask, target: Videos or pictures.
        references: Pictures.
    """

    id: str
    place: str = field(compare=False)
    task: str
    prompts: tuple[str, ...]
    source: Media | None = None
    mask: Media | None = None
    references: tuple[Media, ...] = ()
    target: Media | None = None

    @property
    def files(self) -> list[Media]:
        """All of its files."""
        return [media for media in (self.source, self.mask, *self.references, self.target) if media]


class ManifestRows:
    """The rows of a manifest, in shards of a fixed number.

    Args:
        path: .csv, .jsonl (or .json with one object a line) or .parquet, local or remote.
        rows_per_shard: Rows in a shard.
        cached: `versions` of the cache that the rows are for: the manifest when it was encoded, and when rows
            were appended. If it only grew, its shards stay as they are, and new rows get separate shards.

    Attributes:
        versions: [number of rows, hash of these rows] of each such state, this one last.

    Raises:
        ValueError: The file is missing or is no such table, a column that every row needs is missing, or no
            row says enough to be used.
    """

    def __init__(self, path: str, rows_per_shard: int, cached: Sequence[Sequence] = ()) -> None:
        self.path = str(path)
        self._records = read_table(self.path, (*COLUMNS, *RENAMED))
        if not self._records:
            raise ValueError(f"{shown(path)} has no rows; give a manifest with at least one")
        columns: set[str] = set()
        self._names: Counter[str] = Counter()
        for number in range(len(self._records)):
            record = self._record(number)
            if not isinstance(record, Skipped):
                columns.update(record)
                if (name := _name(record)) is not None:
                    self._names[name] += 1
        if columns:
            others = getattr(self._records, "columns", ())  # of Parquet, those that are not decoded
            _check_columns(self.path, columns.union(RENAMED.get(name, name) for name in others))
        self._check_any()
        self.versions = self._versions(cached)
        starts = [0, *(count for count, _ in self.versions)]
        self._shards = [
            range(first, min(first + rows_per_shard, end))
            for start, end in pairwise(starts)
            for first in range(start, end, rows_per_shard)
        ]
        self.num_shards = len(self._shards)

    def _place(self, number: int) -> str:
        return f"{self.path.rsplit('/', 1)[-1]} row {number + 1}"

    def _record(self, number: int) -> Record | Skipped:
        record = self._records[number]
        try:
            return record if isinstance(record, Skipped) else renamed(record)
        except BadRowError as error:
            return Skipped.from_error(f"{number:08d}", self._place(number), error)

    def _check_any(self) -> None:
        """Refuse a table of another layout, of which every row would be left out."""
        first = None
        for number in range(len(self._records)):
            row = self._row(number)
            if isinstance(row, Row):
                return
            first = first or row
        raise ValueError(
            f"{shown(self.path)}: none of its {len(self._records)} rows can be used; the first: {first}"
        )

    def _versions(self, cached: Sequence[Sequence]) -> list[list]:
        total = len(self._records)
        if cached and cached[-1][0] <= total and self._hash(cached[-1][0]) == cached[-1][1]:
            earlier = [list(version) for version in cached]
            return earlier if cached[-1][0] == total else [*earlier, [total, self._hash(total)]]
        return [[total, self._hash(total)]]

    def _hash(self, count: int) -> str:
        """A hash of the first rows' content in any table format; the files behind the paths are not read."""
        # Row by row, what one JSON list of all rows would give.
        encode, digest = json.JSONEncoder(sort_keys=True).encode, hashlib.sha256(b"[")
        for number in range(count):
            record = self._record(number)
            plain = (
                None if isinstance(record, Skipped) else {n: cell_texts(n, record.get(n)) for n in COLUMNS}
            )
            digest.update(((", " if number else "") + encode(plain)).encode())
        digest.update(b"]")
        return digest.hexdigest()

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of one shard, in order; rows that say too little come as their entries."""
        for number in self._shards[shard]:
            yield self._row(number)

    def count(self, shard: int) -> int:
        """Number of a shard's rows."""
        return len(self._shards[shard])

    def files(self, shard: int) -> dict[str, str]:
        """Name -> path of the files of a shard's rows, by both `relative_name` and `clip_file`."""
        rows = (row for row in self.rows(shard) if isinstance(row, Row))
        paths = dict.fromkeys(media.name for row in rows for media in row.files)
        return {name(path, self.path): path for name in (clip_file, relative_name) for path in paths}

    def _row(self, number: int) -> Row | Skipped:
        record = self._record(number)
        if isinstance(record, Skipped):
            return record
        name, place = _name(record), self._place(number)
        row_id = f"{number:08d}" if name is None else name
        try:
            if name is not None and self._names[name] > 1:
                raise BadRowError("wrong", f"the id {shown(name, 80)} stands in {self._names[name]} rows")
            for column in (*PATHS, "id"):
                check_type(column, record.get(column))
            references = read_list(record.get("ref_image_path"))
            task, prompts = read_texts(record)
        except BadRowError as error:
            return Skipped.from_error(row_id, place, error)
        source, mask, target = (self._media(cell(record.get(column))) for column in PATHS)
        pictures = tuple(self._media(value) for value in references)
        return Row(row_id, place, task, prompts, source, mask, pictures, target)

    def _media(self, value: str | None) -> Media | None:
        return None if value is None else Media(_resolved(value, self.path))


def _name(record: Record) -> str | None:
    """The row's own id; None where it has none that can be one."""
    try:
        check_type("id", record.get("id"))
    except BadRowError:
        return None
    value = cell(record.get("id"))
    return None if value is None else str(value)


def _check_columns(path: str, columns: set[str]) -> None:
    """Refuse a table without the columns that every row needs, and misspelled ones; log those not read."""
    absent = [name for name in COLUMNS if name not in columns]
    others = sorted(columns - set(COLUMNS))
    for name in others:
        near = get_close_matches(name, absent, 1, cutoff=0.8)
        if near:
            raise ValueError(
                f"{shown(path)} has a column '{shown(name, 40)}'; did you mean {near[0]!r}? Rename it"
            )
    if others:
        logger.info("%s: not read: %s (%s)", shown(path), counted(len(others), "column"), listed(others))
    for name in REQUIRED:
        if name in absent:
            raise ValueError(
                f"{shown(path)} has no column {name!r}; its columns are {listed(sorted(columns))}; add it"
            )


def _resolved(path: str, manifest: str) -> str:
    """A relative path starts at the manifest's folder."""
    if "://" in path or path.startswith("/") or path[1:3] in (":\\", ":/"):
        return path
    folder, slash, _ = manifest.replace("\\", "/").rpartition("/")
    return f"{folder}/{path}" if slash else path
