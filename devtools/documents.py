"""Reads JSON files that a person or a killed process may have damaged."""

import json
from pathlib import Path
from typing import Any

from devtools.errors import DevError

MAX_BYTES = 2**26


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        cure: what to do where it is damaged.

    Raises:
        DevError: it is missing, too large, or holds no object; the message ends with the cure.
    """
    try:
        if not path.is_file():  # opening a pipe would wait
            raise ValueError("it is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, expected an object")
    except RecursionError:
        raise DevError(f"{path} is damaged (brackets nested too deeply); {cure}") from None
    except (OSError, ValueError) as error:
        raise DevError(f"{path} is damaged ({error}); {cure}") from error
    return values
