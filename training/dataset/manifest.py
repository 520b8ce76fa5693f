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

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from .clips import Media, read_bytes
from .samples import Skipped

logger = logging.getLogger("vdot")
RENAMED = {"internvl_short": "prompt"}
PATHS = ("src_video_path", "mask_video_path", "target_video_path")
REQUIRED = ("task_name", "prompt")
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
        ValueError: The file is missing or is no such table, or a column that every row needs is missing.
    """

    def __init__(self, path: str, rows_per_shard: int) -> None:
        self.path, self.rows_per_shard = str(path), rows_per_shard
        self._records = [_renamed(record) for record in _read_table(self.path)]
        if not self._records:
            raise ValueError(f"{path} has no rows; give a manifest with at least one")
        _check_columns(self.path, self._records)
        self._names = Counter(_cell(record.get("id")) for record in self._records)
        self.num_shards = -(-len(self._records) // rows_per_shard)

    def identity(self) -> str:
        """A hash of what the rows say, in whichever format; the files behind the paths are not read."""
        known = [{name: _plain(name, record.get(name)) for name in COLUMNS} for record in self._records]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of one shard, in order; rows that say too little come as what is wrong with them."""
        first = shard * self.rows_per_shard
        for number, record in enumerate(self._records[first : first + self.rows_per_shard], first):
            yield self._row(number, record)

    def _row(self, number: int, record: dict[str, Any]) -> Row | Skipped:
        name = _cell(record.get("id"))
        place = f"{self.path.rsplit('/', 1)[-1]} row {number + 1}"
        own_id = str(name) if name is not None else f"{number:08d}"
        if name is not None and self._names[name] > 1:
            return Skipped(own_id, place, "wrong", f"the id {own_id} stands in {self._names[name]} rows")
        files = {column: self._media(_cell(record.get(column))) for column in PATHS}
        try:
            references = _list(record.get("ref_image_path"))
        except ValueError as error:
            return Skipped(own_id, place, "wrong", str(error))
        return make_row(
            own_id,
            place,
            record,
            source=files["src_video_path"],
            mask=files["mask_video_path"],
            target=files["target_video_path"],
            references=tuple(self._media(value) for value in references),
        )

    def _media(self, value: Any) -> Media | None:
        return None if value is None else Media(_resolved(str(value), self.path))


def make_row(row_id: str, place: str, record: dict[str, Any], **files: Any) -> Row | Skipped:
    """A row of a record's task and prompt, or what it lacks."""
    task, prompts = _cell(record.get("task_name")), record.get("prompt")
    prompts = [prompts] if isinstance(prompts, str) or prompts is None else list(prompts)
    prompts = [str(prompt).strip() for prompt in prompts if _cell(prompt) is not None]
    for name, value in (("task_name", task), ("prompt", prompts)):
        if not value:
            return Skipped(row_id, place, "missing", f"{name} is empty")
    return Row(row_id, place, str(task).strip(), tuple(prompts), **files)


def _read_table(path: str) -> list[dict[str, Any]]:
    """All records of a manifest."""
    ending = path.rsplit(".", 1)[-1].lower()
    if ending not in ("csv", "jsonl", "json", "parquet"):
        raise ValueError(f"{path} ends in .{ending}; a manifest is a .csv, .jsonl or .parquet file")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise ValueError(f"the manifest {path} cannot be read: {error}") from error
    if ending == "parquet":
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ValueError(f"{path} needs pyarrow; run `pip install pyarrow`") from error
        return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    text = data.decode("utf-8-sig")
    if ending == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path} line {number} is no JSON object ({error}); give one object a line"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{path} line {number} is a {type(record).__name__}; give one object a line")
        records.append(record)
    return records


def _renamed(record: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in record.items() if name is not None}


def _check_columns(path: str, records: Sequence[dict[str, Any]]) -> None:
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
    """One path, a list of them, or a CSV cell with several."""
    value = _cell(value)
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"ref_image_path is {value!r}, no JSON list ({error})") from error
    parts = value.split(";") if isinstance(value, str) else list(value)
    return [str(part).strip() for part in parts if _cell(part) is not None]


def _plain(name: str, value: Any) -> list[str]:
    """The same value for all three formats."""
    if name == "ref_image_path":
        try:
            return _list(value)
        except ValueError:
            return [str(value)]
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [str(_cell(part)) for part in parts if _cell(part) is not None]


def _resolved(path: str, manifest: str) -> str:
    """A relative path starts at the manifest's folder."""
    if "://" in path or path.startswith("/") or path[1:3] in (":\\", ":/"):
        return path
    folder, slash, _ = manifest.replace("\\", "/").rpartition("/")
    return f"{folder}/{path}" if slash else path
