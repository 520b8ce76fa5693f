"""Files of a run: complete or absent, so that a killed run never leaves half of one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from vdot_core.files import atomic_write, read_file, reason_of
from vdot_core.text import MAX_JSON_BYTES, parse_json, shown

Value = TypeVar("Value")


def write_problem(error: OSError, place: str | Path, cure: str = "the same command resumes") -> str:
    """Sentence on a place that cannot be written.

    Args:
        error: The system's.
        place: Where it names none.
        cure: What to do.
    """
    return f"{shown(error.filename or place)} cannot be written ({reason_of(error)}); {cure}"


def save_safetensors(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step; its folder is created.

    Args:
        tensors: Name -> tensor.
        path: Destination.
        metadata: Strings for the header; "format": "pt" is added.

    Raises:
        OSError: The file cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_write(path) as partial:
        try:
            save_file(ready, str(partial), metadata={"format": "pt", **metadata})
        except SafetensorError as error:
            # The library keeps the system's error as text.
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
            raise


def read_json(path: Path, kind: type[Value], cure: str) -> Value:
    """Read a small JSON file of a run.

    Args:
        path: The file.
        kind: Type of its value.
        cure: What to do where it is damaged.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        value = parse_json(read_file(path, MAX_JSON_BYTES), allow_nan=True)
        if not isinstance(value, kind):
            raise ValueError(f"it holds a {type(value).__name__}, expected a {kind.__name__}")
        return value
    except ValueError as error:
        raise ValueError(f"{shown(path)} is damaged ({shown(error, 120)}); {cure}") from error


def write_json(values: Any, path: str | Path) -> None:
    """Write a JSON file in one step; its folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1))
