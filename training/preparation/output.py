"""Writes what a preparation ends in: tables in Parquet, and WebDataset shards.

clips.parquet         every clip with the values of all stages, and why it was rejected
manifest.parquet      the rows to train on      held_out.parquet      rows of the held-out sources
train-000000.tar ..   the same rows as shards   held_out-000000.tar ..
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vdot_core.files import atomic_write, remove_abandoned

from ..data.cells import COLUMNS
from .config import PrepareConfig
from .pipeline import Clips
from .stage import SIZES, Row
from .store import Store

SPLITS = {"train": "manifest.parquet", "held_out": "held_out.parquet"}
GROUP_ROWS = 10_000
ENDINGS = {
    "src_video_path": "src_video",
    "mask_video_path": "mask_video",
    "target_video_path": "target_video",
    "ref_image_path": "ref_image",
}


def sample_rows(clips: Clips, store: Store, *, held_out: bool) -> Iterator[Row]:
    """The manifest's rows of one split, sorted by clip and task.

    Args:
        clips: The clips.
        store: Results of the stages.
        held_out: Those of the held-out sources, or else all others.
    """
    for clip_id in sorted(clips.used()):
        if clips.starts[clip_id]["held_out"] != held_out or "tasks" not in clips.keys[clip_id]:
            continue
        captions = store.get("captions", clip_id)
        for row in store.get("tasks", clip_id)["rows"]:
            yield {
                **dict.fromkeys(COLUMNS),
                **row,
                "id": f"{clip_id}.{row['task_name']}",
                "prompt": captions["prompt"],
                "clip": clip_id,
                "caption_source": captions["source"],
            }


def clip_rows(clips: Clips, store: Store) -> Iterator[Row]:
    """Every clip with the plain values of its stages, and every source that gave none."""
    waiting = {row_id: f"{stage}: {reason}" for stage, row_id, reason in clips.later}
    for row_id in sorted({*clips.starts, *clips.rejected}):
        start = clips.starts.get(row_id, {})
        stage, reasons = clips.rejected.get(row_id, ("", []))
        row: Row = {
            "id": row_id,
            "source": start.get("source", row_id),
            "source_name": clips.names[start.get("source", row_id)],
            "split": "held_out" if start.get("held_out") else "train",
            "start_s": start.get("start"),
            "rejected_by": stage or None,
            "rejected_because": "; ".join(reasons) or None,
            "waits_for": waiting.get(row_id),
        }
        for name in clips.keys.get(row_id, {}):
            if name != "shots":
                row |= _plain(name, store.get(name, row_id))
        yield row


def _plain(stage: str, values: Row) -> Row:
    """A stage's values as columns; lists and tables as JSON."""
    columns = {}
    for name, value in values.items():
        if name not in ("rejected", SIZES):
            text = json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
            columns[f"{stage}_{name}"] = text
    return columns


def write_parquet(path: Path, make_rows: Callable[[], Iterator[Row]]) -> int:
    """Write a table in groups of rows, of which one is in memory at a time.

    Args:
        path: Destination.
        make_rows: Gives the rows, which are read twice: for their columns and types, and to write them. A
            column that a row lacks is empty there.

    Returns:
        The number of rows.
    """
    import pyarrow
    import pyarrow.parquet

    kinds: dict[str, set[type]] = {}
    for row in make_rows():
        for name, value in row.items():
            kinds.setdefault(name, set()).update(() if value is None else (type(value),))
    schema = pyarrow.schema([(name, _type(name, of)) for name, of in kinds.items()])
    remove_abandoned(path)
    count, rows = 0, make_rows()
    with atomic_write(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _type(name: str, kinds: set[type]) -> Any:
    import pyarrow

    if name == "ref_image_path":
        return pyarrow.list_(pyarrow.string())
    if kinds == {int}:
        return pyarrow.int64()
    return pyarrow.float64() if kinds and kinds <= {int, float} else pyarrow.string()


def write_shards(config: PrepareConfig, split: str, rows: Iterable[Row]) -> int:
    """Write rows with their files as tars; the same rows give the same bytes.

    Args:
        config: Folder, and rows of a tar.
        split: train or held_out, with which the tars' names begin.
        rows: As of `sample_rows`.

    Returns:
        The number of tars; those of an earlier run that are no longer needed are removed.
    """
    folder = Path(config.out_dir)
    rows = iter(rows)
    count = 0
    while part := list(islice(rows, config.rows_per_shard)):
        path = folder / f"{split}-{count:06d}.tar"
        remove_abandoned(path)
        with (
            atomic_write(path) as partial,
            tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for number, row in enumerate(part):
                for name, data in _files(folder, row):
                    _add(archive, f"{number:06d}.{name}", data)
        count += 1
    for path in folder.glob(f"{split}-[0-9]*.tar"):
        if int(path.stem.removeprefix(f"{split}-")) >= count:
            path.unlink()
    return count


def _files(folder: Path, row: Row) -> Iterator[tuple[str, bytes]]:
    """(ending, content) of a row's files, its JSON first; names as `training/data/shards.py` reads them."""
    record = {name: row[name] for name in ("id", "task_name", "prompt", "clip", "caption_source")}
    yield "json", json.dumps(record, sort_keys=True).encode()
    for column, ending in ENDINGS.items():
        value = row.get(column)
        paths = value if isinstance(value, list) else [value] if value else []
        for number, path in enumerate(paths):
            name = f"{ending}_{number}" if isinstance(value, list) else ending
            yield f"{name}{Path(path).suffix}", (folder / path).read_bytes()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
