"""Tables in CSV, JSON Lines or Parquet -> records; lines that hold none are skipped and named."""

from __future__ import annotations

import codecs
import csv
import io
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from vdot_core.text import listed, parse_json, shown

from .bad_rows import Skipped, needs_package
from .parquet import ParquetRows
from .video_files import is_folder, read_bytes

# Decoding maps bytes that are not UTF-8 to these, so that only their own row is lost.
UNDECODED = re.compile("[\udc80-\udcff]")

# What divides the columns instead of commas, and its name in a message.
SPREADSHEET_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}

MAX_ROWS = 10_000_000
Record = dict[str, Any]


def read_table(path: str, columns: Sequence[str]) -> Sequence[Record | Skipped]:
    """All records of a table, in order.

    Args:
        path: .csv, .jsonl (or .json with one object a line) or .parquet, local or remote.
        columns: Columns to read of a Parquet file; of the others, all are read.

    Returns:
        Column -> value of each row; of a line that holds no record, its entry, whose id is its number among
        the rows.

    Raises:
        ValueError: It cannot be read, or is no table of those kinds.
    """
    if is_folder(path):
        raise ValueError(f"the manifest {shown(path)} is a folder; give its .csv, .jsonl or .parquet file")
    _, dot, ending = path.replace("\\", "/").rsplit("/", 1)[-1].rpartition(".")
    ending = ending.lower()
    if ending not in ("csv", "jsonl", "json", "parquet"):
        kind = f"ends in .{shown(ending, 20)}" if dot else "has no ending"
        raise ValueError(f"{shown(path)} {kind}; a manifest is a .csv, .jsonl or .parquet file")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise ValueError(f"the manifest {shown(path)} cannot be read: {error}") from error
    except ImportError as error:
        raise needs_package(path, error) from error
    if ending == "parquet":
        table = ParquetRows(data, path, columns, MAX_ROWS)
        _check_unique(table.columns, path)
        return table
    rows = _csv(data, path) if ending == "csv" else _json_lines(data)
    place = f"{path.rsplit('/', 1)[-1]} line"
    records: list[Record | Skipped] = []
    for number, row in enumerate(rows):
        if number == MAX_ROWS:
            raise ValueError(f"{shown(path)} has more than {MAX_ROWS} rows; divide it into several manifests")
        records.append(
            row
            if isinstance(row, dict)
            else Skipped(f"{number:08d}", f"{place} {row[0]}", "misshapen", row[1])
        )
    return records


def _check_unique(columns: Sequence[str], path: str) -> None:
    """Refuse a table with a column twice; of columns without a name, none is read."""
    twice = [name for name, count in Counter(columns).items() if count > 1 and name.strip()]
    if twice:
        raise ValueError(f"{shown(path)} has the columns {listed(twice)} more than once; keep one of each")


def _check_commas(columns: Sequence[str], path: str) -> None:
    """Refuse a table whose columns another sign divides, as spreadsheets save it in many countries."""
    divider = next((sign for sign in SPREADSHEET_SIGNS if len(columns) == 1 and sign in columns[0]), None)
    if divider:
        raise ValueError(
            f"{shown(path)}: {SPREADSHEET_SIGNS[divider]} divide its columns; save it with commas, or as "
            ".jsonl"
        )


def _json_lines(data: bytes) -> Iterator[Record | tuple[int, str]]:
    """Each record, or the number of a line from 1 and why it holds none."""
    # Lines of bytes: those of text would also end at characters that JSON allows within a string.
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, allow_nan=True, unique_keys=True)
        except ValueError as error:
            yield number, f"the line is no JSON object ({error}); give one object a line"
            continue
        if isinstance(record, dict):
            yield record
        else:
            yield number, f"the line is a JSON {type(record).__name__}; give one object a line"


def _csv(data: bytes, path: str) -> Iterator[Record | tuple[int, str]]:
    """As `_json_lines`; of a row over several lines, the first one's number."""
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    at_end = False

    def lines() -> Iterator[str]:
        nonlocal at_end
        yield from text
        at_end = True

    reader = csv.DictReader(lines())
    try:
        columns = reader.fieldnames or ()
    except csv.Error as error:
        raise ValueError(
            f"{shown(path)}: its first line is no CSV ({error}); give the columns' names"
        ) from error
    if any(UNDECODED.search(name) for name in columns):
        raise ValueError(f"{shown(path)}: its first line is not UTF-8; save the file as UTF-8")
    _check_unique(columns, path)
    _check_commas(columns, path)
    while True:
        first = reader.reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, f"lines {first} to {reader.reader.line_num} are no CSV ({error})"
            continue
        # A complete row asks for no further line.
        reason = (
            f"a quote is not closed: all lines from {first} to {reader.line_num} were read as one row"
            if at_end
            else _wrong_cells(record, len(columns))
        )
        yield (first, reason) if reason else record


def _wrong_cells(record: Record, num_columns: int) -> str | None:
    """The reason why a CSV row's cells do not match its columns."""
    # A comma at the end of each line is no cell.
    beyond = [cell for cell in record.pop(None, ()) if cell.strip()]
    if beyond:
        return (
            f"the row continues after its {num_columns} columns with {reprlib.repr(beyond[0])}; "
            "quote texts that hold a comma"
        )
    for name, value in record.items():
        if value is not None and UNDECODED.search(value):
            return f"{shown(name, 40)} is {reprlib.repr(value)}, which is not UTF-8; save the file as UTF-8"
    return None
