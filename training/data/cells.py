"""Cells of a manifest's rows: their columns, their types, and lists that a table writes as text."""

from __future__ import annotations

import re
import reprlib
from contextlib import suppress
from typing import Any

from vdot_core.text import described, parse_json

from .bad_rows import BadRowError
from .records import Record

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
MAX_TEXT = 1_000_000
"""Characters of a caption, path or name."""
SURROGATE = re.compile("[\ud800-\udfff]")
QUOTED = re.compile(r"\[\s*[\"']")


def read_texts(record: Record) -> tuple[str, tuple[str, ...]]:
    """A record's task and captions; BadRowError where they are missing or no text."""
    check_type("task_name", record.get("task_name"))
    prompts = _captions(record.get("prompt"))
    check_type("prompt", prompts)
    task = cell(record.get("task_name"))
    prompts = prompts if isinstance(prompts, (list, tuple)) else [prompts]
    prompts = tuple(prompt.strip() for prompt in prompts if cell(prompt) is not None)
    for name, value in (("task_name", task), ("prompt", prompts)):
        if not value:
            raise BadRowError("missing", f"{name} is empty")
    return task, prompts


def _captions(value: Any) -> Any:
    """A prompt's cell, of which a list may be written as JSON; BadRowError where quotes make it no such."""
    text = cell(value)
    if isinstance(text, str) and text.startswith("[") and text.endswith("]") and len(text) <= MAX_TEXT:
        try:
            return parse_json(text)
        except ValueError as error:
            # A caption may stand in brackets; with quotes in them it is a list, as other programs write it.
            if QUOTED.match(text):
                raise BadRowError(
                    "wrong",
                    f"prompt is {described(text, 80)}, no JSON list ({error}); put each caption in "
                    "double quotes",
                ) from error
    return value


def check_type(name: str, value: Any) -> None:
    """BadRowError where a cell is not of its column's type; an empty one is of any."""
    listed = isinstance(value, (list, tuple)) and name in ("prompt", "ref_image_path")
    for part in value if listed else [value]:
        number = name == "id" and isinstance(part, (int, float)) and not isinstance(part, bool)
        if not (number or isinstance(part, str) or cell(part) is None):
            raise BadRowError(
                "misshapen",
                f"{name} {'holds' if listed else 'is'} {reprlib.repr(part)}, of type {type(part).__name__}; "
                f"expected {EXPECTED[name]}",
            )
        if isinstance(part, str) and len(part) > MAX_TEXT:
            raise BadRowError(
                "misshapen", f"{name} has {len(part)} characters, expected at most {MAX_TEXT}; shorten it"
            )
        # Half of a UTF-16 pair, which JSON can write and no tokenizer reads; a path may hold any byte.
        if isinstance(part, str) and name in (*REQUIRED, "id") and (half := SURROGATE.search(part)):
            raise BadRowError(
                "misshapen", f"{name} holds {half[0]!r}, half of a surrogate pair; write whole characters"
            )


def renamed(record: Record) -> Record:
    """A record with the names of its columns; BadRowError where one stands there by two names."""
    result: Record = {}
    for name, value in record.items():
        own = RENAMED.get(name, name)
        if cell(result.get(own)) is None:
            result[own] = value
        elif cell(value) is not None:
            raise BadRowError("wrong", f"it has both {own} and {name}, which is read as {own}; keep one")
    return result


def cell(value: Any) -> Any:
    """None for values that tables use for empty cells."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str) and not value.strip():
        return None
    return value.strip() if isinstance(value, str) else value


def read_list(value: Any) -> list[str]:
    """One path, a list of them, or a CSV cell with several; BadRowError where it is neither."""
    value = cell(value)
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("["):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise BadRowError(
                "wrong", f"ref_image_path is {described(value, 80)}, no JSON list ({error})"
            ) from error
    check_type("ref_image_path", value)
    parts = value.split(";") if isinstance(value, str) else value
    return [part.strip() for part in parts if cell(part) is not None]


def cell_texts(name: str, value: Any) -> list[str]:
    """The same value for all three formats."""
    if name == "ref_image_path":
        try:
            return read_list(value)
        except BadRowError:
            return [str(value)]
    if name == "prompt":
        with suppress(BadRowError):
            value = _captions(value)
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [str(cell(part)) for part in parts if cell(part) is not None]
