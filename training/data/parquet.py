"""Parquet files -> records, decoded in blocks; what a file of a few kilobytes may grow to is bounded."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from vdot_core.text import shown

from .bad_rows import Skipped
from .video_files import MAX_FILE_BYTES

# Decoded bytes per byte of the file: captions that are all the same reach some hundreds.
MAX_RATIO, MIN_DECODED_BYTES = 1000, 2**28
# Of all rows, with equal texts as often as they stand there: every row is read at each start.
MAX_TEXT_BYTES = MAX_FILE_BYTES
INDEX_BYTES = 4  # of a value that is stored once
BLOCK_ROWS, MAX_BLOCK_BYTES = 256, 2**26


class ParquetRows(Sequence):
    """The rows of a Parquet file; until a row is asked for, its columns stay packed, with equal texts once.

    Args:
        data: The file.
        path: Its name, for messages.
        names: Columns to decode, where the file has them.
        max_rows: Limit of the rows.

    Attributes:
        columns: Names of all columns of the file.

    Raises:
        ValueError: pyarrow is not installed, this is no Parquet file, or it is beyond a limit.
    """

    def __init__(self, data: bytes, path: str, names: Sequence[str], max_rows: int) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ValueError(f"{shown(path)} needs pyarrow; run `pip install pyarrow`") from error
        self._name = path.rsplit("/", 1)[-1]
        try:
            file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
            self.columns = list(file.schema_arrow.names)
            read = [name for name in self.columns if name in names]
            texts = _check_limits(file, path, read, len(data), max_rows)
            file = pyarrow.parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts)
            self._batches, num_bytes = [], 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=read)
                table = table.select([i for i, name in enumerate(table.column_names) if name in read])
                num_bytes += table.nbytes
                _check_bytes(num_bytes, path, len(data))
                self._batches += table.to_batches()
        except _LimitError:
            raise
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{shown(path)} is no Parquet file that can be read ({shown(error, 120)}); save it again"
            ) from error
        _check_text(self._batches, path)
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))
        self._longest = [max(map(_longest, batch.columns), default=0) for batch in self._batches]
        self._block: tuple[int, list] = (0, [])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> dict[str, Any] | Skipped:
        if not 0 <= number < len(self):
            raise IndexError(number)
        first, rows = self._block
        if not first <= number < first + len(rows):
            batch = bisect_right(self._starts, number) - 1
            part = self._batches[batch].slice(number - self._starts[batch], BLOCK_ROWS)
            longest = self._longest[batch]
            while len(part) > 1 and sum(map(_num_values, part.columns)) * longest > MAX_BLOCK_BYTES:
                part = part.slice(0, len(part) // 2)
            first, rows = number, _records(part, number, self._name, longest)
            self._block = first, rows
        return rows[number - first]


class _LimitError(ValueError):
    """A file is beyond a limit."""


def _check_limits(file: Any, path: str, read: Sequence[str], size: int, max_rows: int) -> list[str]:
    """Refuse by its footer a file that would take too much; the paths of its columns of text."""
    about = file.metadata
    if about.num_rows > max_rows:
        raise _LimitError(
            f"{shown(path)} has {about.num_rows} rows, expected at most {max_rows}; divide it into several "
            "manifests"
        )
    columns = enumerate(map(file.schema.column, range(len(file.schema))))
    used = [(number, column) for number, column in columns if column.path.split(".")[0] in read]
    groups = [about.row_group(group) for group in range(about.num_row_groups)]
    chunks = [group.column(number) for group in groups for number, _ in used]
    num_bytes = sum(max(chunk.total_uncompressed_size, INDEX_BYTES * chunk.num_values) for chunk in chunks)
    _check_bytes(num_bytes, path, size)
    return [column.path for _, column in used if column.physical_type == "BYTE_ARRAY"]


def _check_bytes(num_bytes: int, path: str, size: int) -> None:
    limit = min(MAX_FILE_BYTES, max(MIN_DECODED_BYTES, MAX_RATIO * size))
    if num_bytes > limit:
        raise _LimitError(
            f"{shown(path)} has {size} bytes that decode to {num_bytes}, expected at most {limit}; shorten "
            "its texts, or save it as .jsonl"
        )


def _check_text(batches: Sequence[Any], path: str) -> None:
    num_bytes = sum(_text_bytes(column) for batch in batches for column in batch.columns)
    if num_bytes > MAX_TEXT_BYTES:
        raise _LimitError(
            f"{shown(path)} has rows with {num_bytes} bytes of text in all, expected at most "
            f"{MAX_TEXT_BYTES}; shorten its texts, or divide it into several manifests"
        )


def _records(part: Any, first: int, name: str, longest: int) -> list[dict[str, Any] | Skipped]:
    """The rows of a batch; one that is too large, or whose text is not UTF-8, as its entry."""
    half = len(part) // 2
    if sum(map(_num_values, part.columns)) * longest <= MAX_BLOCK_BYTES:
        try:
            return part.to_pylist()
        except UnicodeDecodeError as error:
            reason = f"a text is not UTF-8 ({shown(error, 80)}); save it as UTF-8"
    else:
        num_bytes = sum(map(_num_values, part.columns)) * longest
        reason = f"its texts have up to {num_bytes} bytes, expected at most {MAX_BLOCK_BYTES}; shorten them"
    if not half:
        return [Skipped(f"{first:08d}", f"{name} row {first + 1}", "misshapen", reason)]
    parts = (part.slice(0, half), first), (part.slice(half), first + half)
    return [row for rows, number in parts for row in _records(rows, number, name, longest)]


def _leaves(column: Any) -> Any:
    """The values of a column, those of its lists one after another."""
    import pyarrow.types

    while pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type):
        column = column.flatten()
    return column


def _num_values(column: Any) -> int:
    return max(len(_leaves(column)), len(column))


def _longest(column: Any) -> int:
    """Bytes of the longest value."""
    import pyarrow.compute

    values = _leaves(column)
    lengths = _lengths(getattr(values, "dictionary", values))
    return 64 if lengths is None else max(64, pyarrow.compute.max(lengths).as_py() or 0)


def _text_bytes(column: Any) -> int:
    """Bytes of all values, with equal ones as often as they stand there."""
    import pyarrow.compute

    values = _leaves(column)
    lengths = _lengths(getattr(values, "dictionary", values))
    if lengths is None:
        return 0
    if hasattr(values, "dictionary"):
        lengths = lengths.take(values.indices)
    return pyarrow.compute.sum(lengths.cast("int64")).as_py() or 0


def _lengths(values: Any) -> Any:
    """Bytes of each text; None where the values are none."""
    import pyarrow.compute
    import pyarrow.types

    if not (
        pyarrow.types.is_large_string(values.type)
        or pyarrow.types.is_string(values.type)
        or pyarrow.types.is_binary(values.type)
        or pyarrow.types.is_large_binary(values.type)
    ):
        return None
    return pyarrow.compute.binary_length(values)
